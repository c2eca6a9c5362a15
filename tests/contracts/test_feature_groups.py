"""What every feature group must do, whatever it declares. A new group is checked by being listed."""

import numpy as np
import pyarrow as pa
import pytest

from features.aggregates import Amount
from features.backfill import backfill
from features.errors import PackedValueError
from features.groups import GROUPS
from features.packing import pack, unpack, unpack_values
from features.purposes import Purpose
from features.tiles import merge_tiles, tiles, values_from_tiles
from features.values import values_at
from features.windows import Cadence
from tests.features.random_log import random_log, random_questions, times_of
from tests.features.vocabulary import EVERYTHING

CASES = [
    pytest.param(group, entity, id=f"{group.name}-{entity}")
    for group in (*GROUPS, *EVERYTHING)
    for entity in group.entities
]
each_group = pytest.mark.parametrize(("group", "entity"), CASES)


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


def a_log(rng, group, rows=600):
    return random_log(rng, group.source, group.entities, rows)


def store_rows(group, entity, log):
    """What goes to the online store: tiles, or the values at every boundary."""
    if group.cadence is Cadence.EVENT:
        return tiles(group, entity, log)
    times = times_of(log)
    return backfill(group, entity, log, int(times.min()), int(times.max()) + group.cadence.step_ms + 1)


def test_names_are_unique():
    assert len({group.name for group in GROUPS}) == len(GROUPS)


@each_group
def test_it_says_what_it_is(group, entity):
    assert group.purpose in Purpose
    assert group.ttl_ms >= max(feature.window_ms for feature in group.features) or group.cadence is not Cadence.EVENT
    for feature in group.features:
        is_text = pa.types.is_string(feature.arrow_type) or feature.arrow_type == pa.list_(pa.string())
        assert (feature.range is None) == is_text, f"{feature.name}: numbers have a range, texts have none"
        assert feature.description.endswith("."), feature.name


@each_group
def test_one_row_out_for_each_row_in(group, entity, rng):
    log = a_log(rng, group)
    names, instants = random_questions(rng, log, entity, 500)
    table = values_at(group, entity, log, names, instants)
    expected = [(feature.name, feature.arrow_type) for feature in group.features]
    assert list(zip(table.column_names, table.schema.types, strict=True)) == [*expected, (group.age_column, pa.int64())]
    back = np.arange(500)[::-1]
    assert values_at(group, entity, log, names.take(pa.array(back)), instants[back]).equals(table.take(pa.array(back)))
    for name, row in zip(names.to_pylist(), table.to_pylist(), strict=True):
        assert name not in (None, "nobody") or set(row.values()) == {None}
    shuffled = log.take(pa.array(rng.permutation(log.num_rows)))
    assert values_at(group, entity, shuffled, names, instants).equals(table)


@each_group
def test_no_rows_and_no_events_are_no_trouble(group, entity, rng):
    log, nothing = a_log(rng, group), pa.array([], pa.string())
    assert values_at(group, entity, log, nothing, []).num_rows == 0
    assert (
        values_at(group, entity, log.slice(0, 0), pa.array(["a", None]), [0, 0]).to_pylist()
        == [dict.fromkeys([feature.name for feature in group.features] + [group.age_column])] * 2
    )
    assert merge_tiles(group, entity, []).equals(tiles(group, entity, log.slice(0, 0)))
    assert unpack_values(group, [None], 0).num_rows == 1
    assert unpack_values(group, [], 0).num_rows == 0


@pytest.mark.parametrize(("group", "entity"), [case for case in CASES if case.values[0] in GROUPS])
def test_values_lie_in_their_range(group, entity, rng):
    log = a_log(rng, group)
    table = values_at(group, entity, log, *random_questions(rng, log, entity, 500))
    for feature in (feature for feature in group.features if feature.range):
        values = table[feature.name].drop_null().combine_chunks()
        assert len(values) > 0, f"{feature.name} is never there: the test sees nothing"
        while pa.types.is_nested(values.type):
            values = values.items if pa.types.is_map(values.type) else values.flatten()
        numbers = np.asarray(values.drop_null())
        assert (numbers >= feature.range[0]).all()
        assert (numbers <= feature.range[1] + 1e-12).all()
    ages = np.asarray(table[group.age_column].drop_null())
    assert (ages > 0).all()


@each_group
def test_the_future_moves_nothing(group, entity, rng):
    """Events at or after an instant are replaced, dropped and invented; its values stay."""
    log = a_log(rng, group)
    times, seen = times_of(log), 0
    for now in rng.choice(times, 5) + rng.integers(-1, 2, 5):
        past, future = log.filter(pa.array(times < now)), random_log(rng, group.source, group.entities, 400)
        future = future.filter(pa.array(times_of(future) >= now))
        future = future.set_column(
            0, "event_id", pa.array([f"new{row}" for row in range(future.num_rows)], pa.string())
        )
        names, _ = random_questions(rng, log, entity, 60)
        asked = np.full(60, now)
        before = values_at(group, entity, log, names, asked)
        seen += 60 - before[group.age_column].null_count
        for other in (past, pa.concat_tables([past, future])):
            assert values_at(group, entity, other, names, asked).equals(before)
    assert seen > 60


@each_group
def test_old_values_expire_to_the_millisecond(group, entity, rng):
    log = a_log(rng, group)
    names = sorted({name for name in log[entity].to_pylist() if name})
    last = np.array([times_of(log.filter(pa.compute.equal(log[entity], name))).max() for name in names])
    alive = values_at(group, entity, log, pa.array(names), last + group.ttl_ms)
    gone = values_at(group, entity, log, pa.array(names), last + group.ttl_ms + 1)
    assert alive[group.age_column].to_pylist() == [group.ttl_ms] * len(names)
    assert gone[group.age_column].to_pylist() == [group.ttl_ms + 1] * len(names)
    counts = [feature.name for feature in group.features if isinstance(feature.aggregate, Amount)]
    assert all(alive[name].to_pylist() == [0] * len(names) for name in counts)
    assert all(gone[feature.name].null_count == len(names) for feature in group.features)


@each_group
def test_tiles_merge_in_any_order(group, entity, rng):
    log = a_log(rng, group)
    whole = tiles(group, entity, log)
    assert whole.schema == group.tile_schema(entity)
    batch_of = rng.integers(0, 5, log.num_rows)
    parts = [tiles(group, entity, log.filter(pa.array(batch_of == batch))) for batch in range(5)]
    for _ in range(3):
        order = rng.permutation(5)
        left = merge_tiles(group, entity, [parts[place] for place in order[:3]])
        assert merge_tiles(group, entity, [left, *(parts[place] for place in order[3:])]).equals(whole)
    names, _ = random_questions(rng, log, entity, 50)
    late = np.full(50, int(times_of(log).max()) + group.delay + group.cadence.step_ms)
    assert values_from_tiles(group, entity, whole, names, late).equals(values_at(group, entity, log, names, late))


@each_group
def test_packed_values_come_back(group, entity, rng):
    log = a_log(rng, group)
    now = int(times_of(log).max()) + group.delay + group.cadence.step_ms
    packed = dict(pack(group, entity, store_rows(group, entity, log)))
    names = [*sorted({name for name in log[entity].to_pylist() if name}), "nobody"]
    # Tiles answer for every later instant; a stored row for the boundary it was written at, until it expires.
    later = [3_600_000, 20 * 86_400_000] if group.cadence is Cadence.EVENT else []
    for asked in (now, *(now + ms for ms in later), now + group.ttl_ms + 1):
        got = unpack_values(group, [packed.get(name) for name in names], asked)
        assert got.equals(values_at(group, entity, log, pa.array(names), np.full(len(names), asked)))
    if group.cadence is not Cadence.EVENT:
        early = unpack_values(group, list(packed.values()), now - 400 * 86_400_000)
        assert early[group.age_column].null_count == len(packed), "a row of the future is no answer"
    again = dict(pack(group, entity, unpack(group, entity, list(packed.items()))))
    assert again == packed


@each_group
def test_other_bytes_are_refused(group, entity, rng):
    packed = dict(pack(group, entity, store_rows(group, entity, a_log(rng, group, 60))))
    value = next(iter(packed.values()))
    for other in (b"", b"{}", value[:20], value[:-9], b"\x00" + value, value[:5] + b"12345678" + value[13:]):
        with pytest.raises(PackedValueError, match=group.name):
            unpack_values(group, [value, other], 0)
