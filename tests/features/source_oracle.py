"""Every source's log once more, in loops over events, from the rules alone; nothing of `features` is imported."""

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tests.features.oracle import split_in_playbacks, weekday

LADDER = [145, 365, 730, 1_100, 2_000, 3_000, 4_500, 6_000, 7_800]


def in_order(events):
    return sorted(events, key=lambda event: (event["time"], event["event_id"]))


def row(event, **changes):
    return {"event_id": event["event_id"], "time": event["time"]} | changes


def local(event):
    is_reliable = event["client_timestamp_reliable"] and event["client_timestamp"] is not None
    time = event["client_timestamp"] if is_reliable else event["time"]
    zone = ZoneInfo(event["time_zone"]) if event["time_zone"] else UTC
    return datetime.fromtimestamp(time / 1000, tz=UTC).astimezone(zone)


def steps(playback):
    """(event, watched until it, first start, stop) of each event of a playback, up to its first stop."""
    playing, switched, was_started, previous = False, False, False, None
    for event in playback:
        name = event["event_name"]
        watched = event["time"] - previous if playing and name != "playback.started" else 0
        yield event, watched, name == "playback.started" and not was_started, name == "playback.stopped"
        if name == "playback.stopped":
            return
        if name in ("playback.started", "playback.resumed"):
            playing, switched = True, True
        elif name == "playback.paused":
            playing, switched = False, True
        elif name == "playback.heartbeat" and not switched:
            playing = True
        was_started = was_started or name == "playback.started"
        previous = event["time"]


def score(stretches, stalls_ms, start_ms):
    """Per cent, from (level, ms) of every stretch watched."""
    whole = sum(ms for _, ms in stretches)
    mean = sum(level * ms for level, ms in stretches) / whole
    deviation = math.sqrt(sum(ms * (level - mean) ** 2 for level, ms in stretches) / whole)
    freezing = 0.0
    if stalls_ms:
        frequency = len(stalls_ms) / (whole / 1000)
        length = sum(stalls_ms) / len(stalls_ms) / 1000
        freezing = 7 / 8 * min(max(math.log(frequency) / 6 + 1, 0), 1) + 1 / 8 * min(length, 15) / 15
    opinion = 5.67 * mean / 9 - 6.72 * deviation / 9 + 0.17 - 4.95 * freezing
    opinion -= 0.963 * math.log10(((start_ms or 0) / 1000 + 5.381) / 5.381)
    return 100 * min(max(opinion, 0), 5.84) / 5.84


def playback_quality(silver):
    rows = []
    for playback in split_in_playbacks(silver["silver.playback"]):
        level, cdn, start_ms, stretches, stalls_ms = None, None, None, [], []
        for event, watched, is_start, _ in steps(playback):
            is_stall = event["event_name"] == "playback.rebuffer"
            is_error = event["event_name"] == "playback.error"
            cdn = event["cdn"] or cdn
            if is_stall:
                stalls_ms.append(event["rebuffer_duration_ms"] or 0)
            if is_start and event["start_time_ms"] is not None:
                start_ms = event["start_time_ms"]
            known = None
            if watched and level is not None:
                stretches.append((level, watched))
                known = score(stretches, stalls_ms, start_ms)
            kbps = [event[name] for name in ("initial_bitrate_kbps", "bitrate_kbps", "new_bitrate_kbps")]
            if any(one is not None for one in kbps):
                level = max(sum(one >= rung for rung in LADDER for one in kbps if one is not None), 1)
            region = event["geo_country"] or event["market"]
            parts = [part.replace("%", "%25").replace("/", "%2F") for part in (cdn, region) if part is not None]
            if is_start or is_stall or is_error or watched:
                rows.append(
                    row(
                        event, user_id=event["user_id"], session_id=event["session_id"], cdn=cdn, watch_ms=watched,
                        cdn_region="/".join(parts) if len(parts) == 2 else None, is_start=is_start,
                        is_rebuffer=is_stall, is_error=is_error, score=None if known is None else known * 1000,
                        start_time_ms=event["start_time_ms"] if is_start else None,
                    )
                )  # fmt: skip
    return rows


def engagement(silver):
    rows, starts, stops = [], [], []
    for playback in split_in_playbacks(silver["silver.playback"]):
        skipped = False
        for event, watched, is_start, is_stop in steps(playback):
            skipped = skipped or event["seek_method"] == "skip_intro"
            is_vod_stop = is_stop and event["content_type"] == "vod"
            is_episode = event["content_series_id"] is not None
            percent = event["completion_percent"]
            if is_episode and is_start:
                starts.append(event)
            if is_episode and is_stop:
                stops.append(event)
            if is_start or is_stop or watched:
                rows.append(
                    row(
                        event, content_id=event["content_id"], watch_ms=watched, is_start=is_start, went_on=False,
                        episode_viewer=event["viewer_token"] if is_episode else None,
                        has_skipped_intro=skipped if is_vod_stop else None,
                        tenths=int(percent // 10) if is_vod_stop and percent is not None else None,
                    )
                )  # fmt: skip
    for start in starts:
        before = [
            stop
            for stop in in_order(stops)
            if stop["viewer_token"] == start["viewer_token"]
            and stop["content_episode_number"] + 1 == start["content_episode_number"]
            and 0 <= start["time"] - stop["time"] <= 30 * 60_000
        ]
        if before:
            changes = {"content_id": before[-1]["content_id"], "episode_viewer": start["viewer_token"], "went_on": True}
            rows.append(row(start, **changes) | {"event_id": start["event_id"] + ":from"})
    return rows


def interactions(silver):
    rows, deepest = [], {}
    names = ("tile.impression", "tile.click", "rail.scroll", "search.query", "search.result.click")
    for event in in_order(silver["silver.browse"] + silver["silver.search"]):
        if event["event_name"] not in names:
            continue
        said = {name: event[name] for name in ("event_name", "user_id", "profile_id")}
        said["clicked_genres"] = event["content_genres"] if event["event_name"].endswith("click") else None
        if event["event_name"] in ("tile.impression", "tile.click", "rail.scroll"):
            said["is_first_scroll"] = False
        if event["event_name"] == "rail.scroll" and event["scroll_depth_percent"] is not None:
            rail = (event["profile_id"], event["session_id"], event["rail_id"])
            depth = round(event["scroll_depth_percent"] * 10)
            said["is_first_scroll"] = rail not in deepest
            said["deeper"] = max(depth - deepest.get(rail, 0), 0)
            deepest[rail] = max(depth, deepest.get(rail, 0))
        rows.append(row(event, **said))
    return rows


def channels(silver):
    rows = []
    for event in silver["silver.live"]:
        said = {"event_name": event["event_name"], "view_duration_ms": event["view_duration_ms"]}
        if event["event_name"] == "channel.tune_away":
            rows.append(row(event, channel_id=event["channel_id"], **said))
        if event["event_name"] == "channel.tune":
            slot = event["time"] // 3_600_000 % 744
            rows.append(row(event, channel_id=event["channel_id"], hour=local(event).hour, hour_slot=slot, **said))
            before = event["previous_channel_id"]
            if before is not None and before != event["channel_id"]:
                left = row(event, channel_id=before, next_channel_id=event["channel_id"], **said)
                rows.append(left | {name: event[name] + ":from" for name in ("event_id", "event_name")})
    return rows


def watching(silver):
    return [
        row(
            event, viewer_token=event["viewer_token"], content_id=event["content_id"], platform=event["platform"],
            channel_id=event["content_id"] if event["content_type"] == "live" else None,
        )
        for event in silver["silver.playback"]
        if event["event_name"] in ("playback.started", "playback.heartbeat")
    ]  # fmt: skip


def sessions(silver):
    events = [event for event in silver["silver.navigation"] if event["event_name"] == "app.launch"]
    events += [event for event in silver["silver.playback"] if event["event_name"] == "playback.started"]
    events = in_order(event for event in events if event["session_id"] is not None)
    begun = {}
    for event in events:
        begun.setdefault(event["session_id"], event)
    number = {}
    for session, event in begun.items():
        viewer, day = event["profile_id"] or event["user_id"], local(event).date()
        number[session] = 1 + sum(
            (one["profile_id"] or one["user_id"]) == viewer and local(one).date() == day
            for one in list(begun.values())[: list(begun).index(session)]
        )
    return [
        row(
            event, session_id=event["session_id"], device_type=event["device_type"], hour=local(event).hour,
            connection_type=event["connection_type"], weekday=weekday(event),
            session_number=number[event["session_id"]],
        )
        for event in events
    ]  # fmt: skip


def account_signals(silver):
    rows = [
        row(event, event_name=event["event_name"], user_id=event["user_id"], watch_ms=None, stalled_ms=None)
        for event in silver["silver.user"]
        if event["event_name"] in ("auth.login_succeeded", "support.contacted", "payment.failed")
    ]
    for playback in split_in_playbacks(silver["silver.playback"]):
        for event, watched, _, _ in steps(playback):
            name = event["event_name"]
            stalled = (event["rebuffer_duration_ms"] or 0) if name == "playback.rebuffer" else 0
            if watched or stalled > 0:
                rows.append(row(event, event_name=name, user_id=event["user_id"], watch_ms=watched, stalled_ms=stalled))
    return rows
