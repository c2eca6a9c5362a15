"""The engine against the slow one of `oracle.py`, on thousands of small histories."""

import math

import numpy as np
import pyarrow as pa
import pytest

from features.backfill import backfill
from features.groups import group
from features.playbacks import viewing_log
from features.values import values_at
from tests.features import oracle, worlds


def agree(got, expected) -> bool:
    """Equal; real numbers within 1e-9 of each other, relatively."""
    if isinstance(expected, dict) and got is not None:
        pairs = dict(got)
        return list(pairs) == list(expected) and all(agree(pairs[key], expected[key]) for key in expected)
    if isinstance(expected, list) and got is not None:
        return len(got) == len(expected) and all(map(agree, got, expected))
    if isinstance(expected, float) and got is not None:
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    return type(got) is type(expected) and got == expected


def check(table: pa.Table, age: str, expected: list, asked: list) -> None:
    """Every row of the table is what the oracle says of it."""
    rows = table.to_pylist()
    assert len(rows) == len(expected)
    for row, (values, known_age), question in zip(rows, expected, asked, strict=True):
        assert row.pop(age) == known_age, question
        for name, value in values.items():
            assert agree(row[name], value), (question, name, row[name], value)
        assert list(row) == list(values)


@pytest.mark.parametrize("seed", range(4))
def test_viewers_equal_the_oracle(seed):
    rng = np.random.default_rng(seed)
    small = [worlds.make_world(rng, f"w{number}") for number in range(500)]
    log = viewing_log(worlds.playback_table(small, rng), worlds.titles_table(small))
    for entity, places in (("profile_id", 2), ("user_id", 1)):
        asked = [
            (world, f"{world.name}-{entity.removesuffix('_id')}-{int(rng.integers(places))}", t)
            for world in small
            for t in worlds.instants(rng, world, 4)
        ]
        table = values_at(
            group("user_viewing_history"), entity, log,
            pa.array([key for _, key, _ in asked]), np.array([t for _, _, t in asked]),
        )  # fmt: skip
        expected = [oracle.user_viewing_history(world.events, world.titles, entity, key, t) for world, key, t in asked]
        assert sum(values["last_30_day_genres"] is not None for values, _ in expected) > len(asked) / 20
        check(table, "user_viewing_history__age_ms", expected, asked)


@pytest.mark.parametrize("seed", range(4))
def test_titles_equal_the_oracle(seed):
    rng = np.random.default_rng(100 + seed)
    small = [worlds.make_world(rng, f"w{number}") for number in range(500)]
    log = viewing_log(worlds.playback_table(small, rng), worlds.titles_table(small))
    asked = [
        (world, f"{world.name}-title-{int(rng.integers(3))}", t)
        for world in small
        for t in worlds.instants(rng, world, 4)
    ]
    table = values_at(
        group("content_popularity"), "content_id", log,
        pa.array([key for _, key, _ in asked]), np.array([t for _, _, t in asked]),
    )  # fmt: skip
    expected = [oracle.content_popularity(world.events, world.titles, key, t) for world, key, t in asked]
    assert sum(values["trending_velocity"] is not None for values, _ in expected) > 10
    check(table, "content_popularity__age_ms", expected, asked)


def test_backfill_has_the_oracle_s_rows_and_no_others():
    rng = np.random.default_rng(7)
    popularity = group("content_popularity")
    for number in range(25):
        world = worlds.make_world(rng, f"w{number}")
        log = viewing_log(worlds.playback_table([world], rng), worlds.titles_table([world]))
        times = [event["time"] for event in world.events]
        start = int(rng.choice(times)) - int(rng.integers(3)) * worlds.HOUR + int(rng.integers(-1, 2))
        end = start + int(rng.integers(0, 300)) * worlds.HOUR + int(rng.integers(-1, 2))
        rows = {
            (row["content_id"], row["event_timestamp"].timestamp() * 1000): row
            for row in backfill(popularity, "content_id", log, start, end).to_pylist()
        }
        boundaries = range(-(-start // worlds.HOUR) * worlds.HOUR, end, worlds.HOUR)
        expected = {}
        for title in range(3):
            content_id = f"{world.name}-title-{title}"
            for boundary in boundaries:
                # Asked at the boundary plus the delay; the TTL counts from the boundary here.
                values, age = oracle.content_popularity(world.events, world.titles, content_id, boundary + 900_000)
                if age is not None and age - 900_000 <= 8 * worlds.DAY:
                    expected[content_id, boundary] = (values, boundary + 900_000 - age)
        assert rows.keys() == expected.keys()
        for key, (values, last_event) in expected.items():
            row = rows[key]
            assert row["last_event_timestamp"].timestamp() * 1000 == last_event
            assert row["created_timestamp"].timestamp() * 1000 == key[1] + 900_000
            if key[1] + 900_000 - last_event <= 8 * worlds.DAY:
                assert all(agree(row[name], value) for name, value in values.items()), (key, row, values)
