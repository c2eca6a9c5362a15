"""A part of what is stored, made anew: against tables put together row by row in plain Python."""

import numpy as np
import pyarrow as pa
import pytest

from features.backfill import backfill, backfill_from_tiles
from features.columns import milliseconds
from features.declarations import CREATED
from features.groups import GROUPS
from features.revision import Part, revise_rows, revise_tiles
from features.source import EVENT_TIME
from features.tiles import tiles
from features.windows import DAY_MS, Cadence
from tests.features.random_log import random_log, times_of
from tests.features.vocabulary import EVERYTHING

CASES = [
    pytest.param(one, entity, id=f"{one.name}-{entity}") for one in (*GROUPS, *EVERYTHING) for entity in one.entities
]
WITH_ROWS = [case for case in CASES if case.values[0].cadence is not Cadence.EVENT]
NOBODY = pa.array([], pa.string())
NOW_MS = 1 << 43


def two_logs(group, seed):
    """A log, and the same with other events on one of its days; the day."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, group.source, group.entities, 150)
    day = int(rng.choice(times_of(log))) // DAY_MS
    is_there = times_of(log) // DAY_MS == day
    other = random_log(rng, group.source, group.entities, 150)
    other = other.filter(pa.array(times_of(other) // DAY_MS == day))
    names = pa.array([f"other-{place}" for place in range(other.num_rows)], pa.string())
    other = other.set_column(other.schema.get_field_index("event_id"), other.schema.field("event_id"), names)
    kept = is_there & (rng.random(len(is_there)) < 0.5)
    return log, pa.concat_tables([log.filter(pa.array(~is_there | kept)), other]), day


def keyed(rows, *keys):
    found = {tuple(row[key] for key in keys): row for row in rows.to_pylist()}
    assert len(found) == rows.num_rows
    return found


@pytest.mark.parametrize(("group", "entity"), CASES)
def test_tiles_of_a_day_are_replaced_and_changes_are_found(group, entity):
    before, after, day = two_logs(group, 41)
    stored, wanted = tiles(group, entity, before), tiles(group, entity, after)
    part = Part(((day * DAY_MS, (day + 1) * DAY_MS),), NOBODY)
    made = wanted.filter(pa.array(part.covers(wanted[entity], milliseconds(wanted["tile_start"]))))
    revised = revise_tiles(entity, stored, made, part)
    keys = (entity, "tile_ms", "tile_start")
    old, new = keyed(stored, *keys), keyed(wanted, *keys)
    assert keyed(revised.tiles, *keys) == new
    since = {}
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            since[key[0]] = min(since.get(key[0], key[2]), key[2])
    found = dict(zip(revised.entities.to_pylist(), revised.since_ms.tolist(), strict=True))
    assert found == {name: round(start.timestamp() * 1000) for name, start in since.items()}
    assert found
    again = revise_tiles(entity, revised.tiles, made, part)
    assert len(again.entities) == 0
    assert keyed(again.tiles, *keys) == new


@pytest.mark.parametrize(("group", "entity"), CASES)
def test_entities_are_made_anew_whole(group, entity):
    before, after, _ = two_logs(group, 42)
    stored, wanted = tiles(group, entity, before), tiles(group, entity, after)
    names = pa.array(sorted(set(stored[entity].to_pylist()))[:2])
    of_names = wanted.filter(pa.compute.is_in(wanted[entity], names))
    revised = revise_tiles(entity, stored, of_names, Part((), names))
    keys = (entity, "tile_ms", "tile_start")
    expected = {key: row for key, row in keyed(stored, *keys).items() if key[0] not in names.to_pylist()}
    assert keyed(revised.tiles, *keys) == expected | keyed(of_names, *keys)


@pytest.mark.parametrize(("group", "entity"), WITH_ROWS)
def test_values_from_tiles_are_those_from_the_log(group, entity):
    log, _, _ = two_logs(group, 43)
    start, end = int(times_of(log).min()), int(times_of(log).max()) + 3 * DAY_MS
    assert backfill_from_tiles(group, entity, tiles(group, entity, log), start, end).equals(
        backfill(group, entity, log, start, end)
    )


@pytest.mark.parametrize(("group", "entity"), WITH_ROWS)
def test_what_was_published_stays_and_corrections_stand_beside_it(group, entity):
    before, after, day = two_logs(group, 44)
    start, end = (day - 2) * DAY_MS, (day + 8) * DAY_MS
    published_ms = (day + 3) * DAY_MS
    stored = backfill(group, entity, before, start, published_ms + 1)
    made = backfill(group, entity, after, start, end)
    everything = np.ones(stored.num_rows, dtype=np.bool_)
    options = {"published_ms": published_ms, "now_ms": NOW_MS, "forget": NOBODY}
    revised = revise_rows(group, entity, stored, made, everything, **options)
    old, new = keyed(stored, entity, EVENT_TIME), keyed(made, entity, EVENT_TIME)
    expected = []
    for key, row in new.items():
        values = {name: value for name, value in row.items() if name != CREATED}
        was = old.get(key)
        if was is not None:
            expected.append(was)
            if {name: was[name] for name in values} == values:
                continue
        is_late = round(key[1].timestamp() * 1000) <= published_ms
        expected.append(row | ({"created_ms": NOW_MS} if is_late else {}))
    expected = sorted(map(plain, expected))
    assert sorted(map(plain, revised.rows.to_pylist())) == expected
    assert revised.has_changed
    everything = np.ones(revised.rows.num_rows, dtype=np.bool_)
    options |= {"published_ms": int(milliseconds(made[EVENT_TIME]).max()), "now_ms": NOW_MS + 1}
    again = revise_rows(group, entity, revised.rows, made, everything, **options)
    assert not again.has_changed
    assert again.rows.equals(revised.rows)


def plain(row):
    """A row as text, with the time it was created in ms."""
    created = row.get("created_ms", round(row[CREATED].timestamp() * 1000))
    return repr([*[(name, value) for name, value in row.items() if name not in (CREATED, "created_ms")], created])
