"""A second, slow engine in plain Python, written from the platform's rules and sharing no line with the first.

Everything is lists, dicts and loops over events; every number is spelt out; nothing of `features` is imported.
"""

from collections import defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo


def hop(window):
    """5 minutes for windows under 12 hours, 1 hour up to 12 days, 1 day above."""
    if window < 43_200_000:
        return 300_000
    return 3_600_000 if window <= 1_036_800_000 else 86_400_000


def floor(instant, step):
    return (instant // step) * step


def in_window(rows, end, window):
    return [row for row in rows if floor(end - window, hop(window)) <= row["time"] < end]


def days(number):
    return number * 86_400_000


def title_of(titles, content_id, time):
    """Latest row at or before the event, else the earliest."""
    own = sorted((title for title in titles if title["content_id"] == content_id), key=lambda title: title["time"])
    before = [title for title in own if title["time"] <= time]
    return (before or own[:1] or [None])[-1]


def weekday(event):
    time = event["time"]
    if event["client_timestamp_reliable"] and event["client_timestamp"] is not None:
        time = event["client_timestamp"]
    zone = ZoneInfo(event["time_zone"]) if event["time_zone"] else UTC
    return datetime.fromtimestamp(time / 1000, tz=UTC).astimezone(zone).weekday()


def split_in_playbacks(events):
    """Lists of events, each list one playback in the order of time and id."""
    playbacks = []
    chains = defaultdict(list)
    for event in sorted(events, key=lambda event: (event["time"], event["event_id"])):
        if event["playback_id"] is not None:
            chains["id", event["profile_id"], event["playback_id"]].append(event)
            continue
        session = event["session_id"] if event["session_id"] is not None else event["viewer_token"]
        chains["session", event["profile_id"], session, event["content_id"]].append(event)
    for kind, chain in ((key[0], chain) for key, chain in chains.items()):
        current = []
        last_mark = None
        for event in chain:
            started = event["event_name"] == "playback.started"
            if kind == "session" and current:
                gap = event["time"] - current[-1]["time"] > 30 * 60 * 1000
                if gap or (started and last_mark == "playback.stopped"):
                    playbacks.append(current)
                    current = []
            current.append(event)
            if event["event_name"] in ("playback.started", "playback.stopped"):
                last_mark = event["event_name"]
        playbacks.append(current)
    return playbacks


def walk(playback, titles):
    """What each event of one playback says about viewing."""
    rows = []
    playing, switched, was_started, previous = False, False, False, None
    for event in playback:
        name = event["event_name"]
        watched = event["time"] - previous if playing and name != "playback.started" else 0
        title = title_of(titles, event["content_id"], event["time"])
        content_type = event["content_type"] or (title["content_type"] if title else None)
        row = dict(event, watched=watched, content_type=content_type, weekday=weekday(event))
        row["genres"] = (title["genres"] if title else None) or []
        row["start"] = name == "playback.started" and not was_started
        row["stop"] = name == "playback.stopped"
        percent = event["completion_percent"]
        row["complete"] = percent > 90 if row["stop"] and content_type == "vod" and percent is not None else None
        row["finished"] = row["stop"] and percent is not None and percent >= 50
        if row["start"] or row["stop"] or watched > 0:
            rows.append(row)
        if row["stop"]:
            break
        if name in ("playback.started", "playback.resumed"):
            playing, switched = True, True
        elif name == "playback.paused":
            playing, switched = False, True
        elif name == "playback.heartbeat" and not switched:
            playing = True
        was_started = was_started or name == "playback.started"
        previous = event["time"]
    return rows


def viewing(events, titles):
    rows = [row for playback in split_in_playbacks(events) for row in walk(playback, titles)]
    return sorted(rows, key=lambda row: (row["time"], row["event_id"]))


def rate(yes, all_of_them):
    return yes / all_of_them if all_of_them else None


def completion(rows):
    known = [row["complete"] for row in rows if row["complete"] is not None]
    return rate(sum(known), len(known))


def shares(rows, keys_of):
    time = defaultdict(Fraction)
    for row in rows:
        keys = keys_of(row)
        for key in keys:
            time[key] += Fraction(row["watched"], len(keys))
    whole = sum(time.values())
    return {key: float(part / whole) for key, part in sorted(time.items()) if part} if whole else None


def user_viewing_history(events, titles, entity, value, t):
    """Features and age of a viewer for a request at t, from the events before t - 2 s alone."""
    now = t - 2000
    rows = viewing([event for event in events if event["time"] < now], titles)
    rows = [row for row in rows if row[entity] == value]
    names = ["last_30_day_genres", "avg_session_duration", "completion_rate", "viewing_hours_per_dow"]
    names += ["preferred_content_type", "recent_titles"]
    if not rows:
        return dict.fromkeys(names), None
    age = t - max(row["time"] for row in rows)
    if age > days(90):
        return dict.fromkeys(names), age
    month, four_weeks = in_window(rows, now, days(30)), in_window(rows, now, days(28))
    hours = [0.0] * 7
    for day in range(7):
        hours[day] = sum(row["watched"] for row in four_weeks if row["weekday"] == day) / 3_600_000
    types = shares(month, lambda row: [row["content_type"]] if row["content_type"] else [])
    longest = max(types.values()) if types else None
    finished = [row["content_id"] for row in in_window(rows, now, days(90)) if row["finished"]]
    started = sum(row["start"] for row in month)
    values = [
        shares(month, lambda row: row["genres"]),
        rate(sum(row["watched"] for row in month), started),
        completion(month),
        hours if four_weeks else None,
        min(key for key, share in types.items() if share == longest) if types else None,
        finished[-100:] or None,
    ]
    return dict(zip(names, values, strict=True)), age


def content_popularity(events, titles, content_id, t):
    """Features and age of a title for a request at t: as of the last full hour 15 minutes before t."""
    now = floor(t - 900_000, 3_600_000)
    rows = viewing([event for event in events if event["time"] < now], titles)
    rows = [row for row in rows if row["content_id"] == content_id]
    names = ["hourly_viewers", "daily_unique_viewers", "completion_rate", "trending_velocity"]
    if not rows:
        return dict.fromkeys(names), None
    age = t - max(row["time"] for row in rows)
    if age > days(8):
        return dict.fromkeys(names), age

    def viewers(end, window):
        return len({row["viewer_token"] for row in in_window(rows, end, window)})

    earlier = Fraction(sum(viewers(now - days(back), 3_600_000) for back in range(1, 8)), 7)
    last_hour = viewers(now, 3_600_000)
    values = [
        last_hour,
        viewers(now, days(1)),
        completion(in_window(rows, now, days(7))),
        float(last_hour / earlier) if earlier else None,
    ]
    return dict(zip(names, values, strict=True)), age
