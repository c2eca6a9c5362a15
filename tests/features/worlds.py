"""Small random worlds: playback events and titles full of ties, gaps, edges, resends and clocks that lie."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

TIMESTAMP = pa.timestamp("ms", tz="UTC")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
# 29 February 2024; Europe's clocks change on 31 March and 27 October, America's on 10 March and 3 November.
EPOCHS_MS = [1_709_164_800_000, 1_711_843_200_000, 1_729_983_600_000, 1_730_613_600_000, 1_709_980_000_000, -5 * DAY]
ZONES = [None, "UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"]
GENRES = ["Comedy", "Drama", "Film-Noir", "News", "Sci-Fi"]
NAMES = ["started", "heartbeat", "heartbeat", "paused", "resumed", "seeked", "stopped", "stopped", "requested"]
STEPS_MS = [0, 0, 1, 999, 30_000, 5 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, HOUR, 5 * HOUR, DAY, 7 * DAY, 29 * DAY]
VIEWERS = [f"viewer-{number}" for number in range(6)]

PLAYBACK_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_name", pa.string()),
        ("event_timestamp", TIMESTAMP),
        ("client_timestamp", TIMESTAMP),
        ("client_timestamp_reliable", pa.bool_()),
        ("user_id", pa.string()),
        ("profile_id", pa.string()),
        ("session_id", pa.string()),
        ("viewer_token", pa.string()),
        ("playback_id", pa.string()),
        ("content_id", pa.string()),
        ("content_type", pa.string()),
        ("completion_percent", pa.float64()),
        ("time_zone", pa.string()),
    ]
)
TITLES_SCHEMA = pa.schema(
    [
        ("content_id", pa.string()),
        ("content_type", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("event_timestamp", TIMESTAMP),
    ]
)


@dataclass
class World:
    """A few viewers and titles whose ids no other world has; events are dicts, times int ms under `time`."""

    name: str
    events: list[dict] = field(default_factory=list)
    titles: list[dict] = field(default_factory=list)


def make_world(rng: np.random.Generator, name: str) -> World:
    world = World(name)
    epoch = int(rng.choice(EPOCHS_MS))
    for title in range(3):
        for row in range(int(rng.integers(0, 3))):
            genres = [str(genre) for genre in rng.choice(GENRES, int(rng.integers(0, 4)), replace=False)]
            world.titles.append(
                {
                    "content_id": f"{name}-title-{title}",
                    "content_type": [None, "vod", "live"][int(rng.integers(3))],
                    "genres": genres if rng.random() < 0.9 else None,
                    "time": epoch + row * 3 * DAY + int(rng.integers(0, DAY)),
                }
            )
    time = epoch
    # Slow worlds stretch over months, quick ones happen within the hour.
    steps = STEPS_MS[: int(rng.integers(5, len(STEPS_MS) + 1))]
    for number in range(int(rng.integers(1, 36))):
        time += int(rng.choice(steps))
        if rng.random() < 0.1:
            time = -(-time // HOUR) * HOUR
        world.events.append(_event(rng, world, number, time))
    return world


def _event(rng: np.random.Generator, world: World, number: int, time: int) -> dict:
    viewer = int(rng.integers(0, 3))
    is_kid = viewer == 2
    name = str(rng.choice(NAMES))
    return {
        "event_id": f"evt_{int(rng.integers(0, 10**6)):06d}-{world.name}-{number}",
        "event_name": f"playback.{name}",
        "time": time,
        "client_timestamp": None if rng.random() < 0.2 else time + int(rng.integers(-4 * MINUTE, 4 * MINUTE)),
        "client_timestamp_reliable": bool(rng.random() < 0.7),
        "user_id": None if is_kid else f"{world.name}-user-{viewer // 2}",
        "profile_id": None if is_kid else f"{world.name}-profile-{viewer}",
        "session_id": None if is_kid else f"{world.name}-session-{int(rng.integers(0, 2))}",
        "viewer_token": VIEWERS[int(rng.integers(2, 6))] if is_kid else VIEWERS[viewer],
        "playback_id": None if rng.random() < 0.5 else f"{world.name}-playback-{int(rng.integers(0, 3))}",
        "content_id": f"{world.name}-title-{int(rng.integers(0, 3))}",
        "content_type": [None, "vod", "vod", "live"][int(rng.integers(4))],
        "completion_percent": [None, 0.0, 49.9, 50.0, 90.0, 90.1, 100.0][int(rng.integers(7))]
        if name == "stopped"
        else None,
        "time_zone": [*ZONES][int(rng.integers(len(ZONES)))],
    }


def playback_table(worlds: list[World], rng: np.random.Generator) -> pa.Table:
    """Silver playback rows of the worlds, in random order."""
    events = [event for world in worlds for event in world.events]
    rows = [events[place] | {"event_timestamp": events[place]["time"]} for place in rng.permutation(len(events))]
    return pa.Table.from_pylist(rows, schema=PLAYBACK_SCHEMA)


def titles_table(worlds: list[World]) -> pa.Table:
    titles = [title | {"event_timestamp": title["time"]} for world in worlds for title in world.titles]
    return pa.Table.from_pylist(titles, schema=TITLES_SCHEMA)


def instants(rng: np.random.Generator, world: World, number: int) -> list[int]:
    """Instants at which mistakes show: around events, and where a window's edge passes over one."""
    chosen = []
    for _ in range(number):
        time = world.events[int(rng.integers(len(world.events)))]["time"]
        offset = int(rng.choice([0, 2000, 900_000, HOUR, DAY, 7 * DAY, 8 * DAY, 28 * DAY, 30 * DAY, 90 * DAY]))
        edge = int(rng.choice([1, HOUR, DAY]))
        delay = int(rng.choice([0, 2000, 900_000]))
        chosen.append(-(-(time + offset) // edge) * edge + delay + int(rng.integers(-1, 3)))
    return chosen
