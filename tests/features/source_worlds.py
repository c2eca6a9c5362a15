"""Small random silver tables for every source, full of ties, resends of the same thing, edges, and clocks that lie."""

import numpy as np
import pyarrow as pa

from features.source import Source
from tests.features import worlds
from tests.features.worlds import DAY, HOUR, MINUTE, TIMESTAMP

_TYPES = {
    "event_id": pa.string(), "event_name": pa.string(), "event_timestamp": TIMESTAMP, "client_timestamp": TIMESTAMP,
    "client_timestamp_reliable": pa.bool_(), "time_zone": pa.string(), "user_id": pa.string(),
    "profile_id": pa.string(), "session_id": pa.string(), "viewer_token": pa.string(), "playback_id": pa.string(),
    "content_id": pa.string(), "content_type": pa.string(), "completion_percent": pa.float64(), "cdn": pa.string(),
    "geo_country": pa.string(), "market": pa.string(), "start_time_ms": pa.int64(),
    "initial_bitrate_kbps": pa.int32(), "bitrate_kbps": pa.int32(), "new_bitrate_kbps": pa.int32(),
    "rebuffer_duration_ms": pa.int64(), "seek_method": pa.string(), "content_series_id": pa.string(),
    "content_episode_number": pa.int32(), "device_type": pa.string(), "connection_type": pa.string(),
    "rail_id": pa.string(), "scroll_depth_percent": pa.float64(), "content_genres": pa.list_(pa.string()),
    "genres": pa.list_(pa.string()), "platform": pa.string(),
    "channel_id": pa.string(), "previous_channel_id": pa.string(), "view_duration_ms": pa.int64(),
}  # fmt: skip
_MORE = ("rebuffer", "rebuffer", "quality_changed", "error", "seeked", "heartbeat")
_STEPS_MS = (0, 0, 1, 999, 30_000, 5 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, HOUR, 5 * HOUR, 13 * HOUR, DAY)


def silver(rng: np.random.Generator, name: str) -> dict[str, list[dict]]:
    """Events of a few people by table; times are int ms under `time`."""
    world = worlds.make_world(rng, name)
    playback = _about_quality(rng, world.events)
    viewers = [
        {key: event[key] for key in ("user_id", "profile_id", "session_id", "viewer_token")} for event in playback
    ]

    def some(table, names, number, properties):
        time, events = playback[0]["time"] - HOUR, []
        for place in range(number):
            time += int(rng.choice(_STEPS_MS))
            event = {"event_id": f"{table}_{int(rng.integers(10**6)):06d}-{name}-{place}", "time": time}
            event |= {"event_name": str(rng.choice(names)), **viewers[int(rng.integers(len(viewers)))]}
            event |= {"client_timestamp": time + int(rng.integers(-4 * MINUTE, 4 * MINUTE)), "device_type": "phone"}
            event |= {"client_timestamp_reliable": bool(rng.integers(2)), "connection_type": None}
            event |= {"time_zone": worlds.ZONES[int(rng.integers(len(worlds.ZONES)))]}
            events.append(event | properties())
        return events

    def pick(*values):
        return values[int(rng.integers(len(values)))]

    return {
        "silver.playback": playback,
        "silver.titles": world.titles,
        "silver.navigation": some("nav", ["app.launch", "app.launch", "app.background"], 12, dict),
        "silver.browse": some(
            "browse", ["tile.impression", "tile.click", "rail.scroll", "rail.scroll", "hero.click"], 20,
            lambda: {"rail_id": pick("a", "b"), "scroll_depth_percent": pick(None, 0.0, 12.5, 40.0, 99.96, 100.0),
                     "content_genres": pick(None, [], ["Drama"], ["Drama", "News"])},
        ),
        "silver.search": some(
            "search", ["search.query", "search.result.click", "search.abandoned"], 8,
            lambda: {"content_genres": pick(None, ["Comedy"])},
        ),
        "silver.live": some(
            "live", ["channel.tune", "channel.tune", "channel.tune_away", "catchup.play"], 12,
            lambda: {"channel_id": pick("c1", "c2", "c3"), "previous_channel_id": pick(None, "c1", "c2"),
                     "view_duration_ms": int(rng.integers(10**6))},
        ),
        "silver.user": some(
            "user", ["auth.login_succeeded", "support.contacted", "payment.failed", "auth.logged_out"], 8, dict
        ),
    }  # fmt: skip


def _about_quality(rng: np.random.Generator, events: list[dict]) -> list[dict]:
    """Playback events of `worlds`, some of them made to be about quality, of the episodes of a series."""
    for place, event in enumerate(events):
        if rng.random() < 0.35:
            event["event_name"] = f"playback.{rng.choice(_MORE)}"
            event["completion_percent"] = None
        what = event["event_name"].removeprefix("playback.")
        episode = int(event["content_id"][-1])
        bitrate = [None, 0, 100, 145, 729, 3_000, 7_800, 20_000][int(rng.integers(8))]
        event |= {
            "cdn": [None, "akamai", "a/b", "100%"][int(rng.integers(4))] if what in ("started", "heartbeat") else None,
            "geo_country": [None, "FR"][int(rng.integers(2))],
            "market": [None, "DE"][int(rng.integers(2))],
            "start_time_ms": [None, 0, 900, 12_000][int(rng.integers(4))] if what == "started" else None,
            "initial_bitrate_kbps": bitrate if what == "started" else None,
            "bitrate_kbps": bitrate if what == "heartbeat" else None,
            "new_bitrate_kbps": bitrate if what == "quality_changed" else None,
            "rebuffer_duration_ms": [None, 0, 2_000, 40_000][int(rng.integers(4))] if what == "rebuffer" else None,
            "seek_method": ["scrub", "skip_intro"][int(rng.integers(2))] if what == "seeked" else None,
            "content_series_id": None if episode == 2 and rng.random() < 0.3 else "series",
            "content_episode_number": episode + 1,
            "device_type": [None, "tv", "phone"][int(rng.integers(3))],
            "connection_type": [None, "wifi"][int(rng.integers(2))],
            "platform": [None, "web", "ios"][place % 3],
        }
    return events


def as_table(events: list[dict], columns: tuple[str, ...], rng: np.random.Generator) -> pa.Table:
    """Rows of silver with these columns, in random order."""
    rows = [events[place] | {"event_timestamp": events[place]["time"]} for place in rng.permutation(len(events))]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, _TYPES[name]) for name in columns]))


def tables(source: Source, silver: dict[str, list[dict]], rng: np.random.Generator, before=None) -> dict[str, pa.Table]:
    """What the source reads of a world, of people's events before an instant only."""
    return {
        name: as_table(
            [event for event in silver[name] if before is None or name in source.shared or event["time"] < before],
            columns,
            rng,
        )
        for name, columns in (source.reads | source.shared).items()
    }


def together(rng: np.random.Generator, number: int) -> dict[str, list[dict]]:
    """As many worlds in one, whose people and titles have nothing to do with each other."""
    few = [silver(rng, f"w{place}") for place in range(number)]
    return {name: [event for one in few for event in one[name]] for name in few[0]}
