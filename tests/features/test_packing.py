"""What a packed value answers quickly is what its tiles, and the log itself, answer; whatever the instant."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.backfill import backfill
from features.columns import flat
from features.declarations import FeatureGroup
from features.errors import PackedValueError
from features.groups import GROUPS
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.packing import newest_asked_ms, pack, read_values, unpack, unpack_values
from features.plain import python_values
from features.tiles import tiles, values_from_tiles
from features.values import values_at
from features.windows import Cadence
from tests.features.random_log import DAY_MS, HOUR_MS, MINUTE_MS, random_log, times_of
from tests.features.vocabulary import EVERYTHING

TILED = [group for group in (*GROUPS, *EVERYTHING) if group.cadence is Cadence.EVENT]
HEAD_BYTES = 5 + 8 + 8 + 8 + 5 * 8 + 5 * 8
LAST_EDGE_AT = HEAD_BYTES - 8


@cache
def history(group: FeatureGroup, seed: int) -> tuple[pa.Table, list[str]]:
    """Events of a few entities, some of whom had hardly any, and who they are."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, group.source, group.entities, int(rng.integers(1, 120)), keys=int(rng.integers(1, 6)))
    return log, sorted({name for name in log[group.entities[0]].to_pylist() if name is not None})


def spoiled(value: bytes) -> bytes:
    """The same rows, and tiles that nobody can read."""
    start = int.from_bytes(value[LAST_EDGE_AT:HEAD_BYTES], "little")
    return value[:start] + b"\xff" * (len(value) - start)


@pytest.mark.parametrize("group", TILED, ids=lambda group: group.name)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 40),
    valued_after_ms=st.none() | st.integers(-10 * DAY_MS, 60 * DAY_MS),
    asked_after_ms=st.lists(
        st.builds(
            lambda hours, minutes, ms: hours * HOUR_MS + minutes * 5 * MINUTE_MS + ms,
            st.integers(-50 * 24, 120 * 24) | st.integers(-2, 30),
            st.integers(0, 12),
            st.sampled_from([0, 1, -1, 1999, 2000, 2001]) | st.integers(0, HOUR_MS),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_a_row_is_what_the_tiles_give(
    group: FeatureGroup, seed: int, valued_after_ms: int | None, asked_after_ms: list[int]
) -> None:
    entity = group.entities[0]
    log, names = history(group, seed)
    if not names:
        return
    newest_ms = int(times_of(log).max())
    floor_ms = newest_ms - newest_ms % DAY_MS
    valued_from_ms = None if valued_after_ms is None else newest_ms + valued_after_ms
    packed = list(pack(group, entity, tiles(group, entity, log), valued_from_ms))
    values, kept = [value for _, value in packed], unpack(group, entity, packed)
    assert [name for name, _ in packed] == names
    for asked_ms in (floor_ms + after_ms for after_ms in asked_after_ms):
        asked = np.full(len(names), asked_ms)
        given_ = unpack_values(group, values, asked_ms)
        assert given_.equals(values_from_tiles(group, entity, kept, pa.array(names), asked))
        # One alone is given what it is given among others.
        assert unpack_values(group, values[-1:], asked_ms).equals(given_.slice(len(names) - 1).combine_chunks())
        if asked_ms - group.delay > newest_ms:
            assert given_.equals(values_at(group, entity, log, pa.array(names), asked))


@pytest.mark.parametrize("group", TILED, ids=lambda group: group.name)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 40), after_ms=st.integers(-3_000, 3_000) | st.integers(0, 40 * DAY_MS), as_ready=st.booleans()
)
def test_the_newest_is_what_the_log_gives_at_the_first_instant_that_knows_it(
    group: FeatureGroup, seed: int, after_ms: int, as_ready: bool
) -> None:
    """Whoever asks before an event is older than the delay gets it, and is told of which instant the answer is."""
    entity = group.entities[0]
    log, names = history(group, seed)
    for name in names:
        own = log.filter(pa.compute.equal(log[entity], name))
        asked_ms = int(times_of(own).max()) + after_ms
        packed = pack(group, entity, tiles(group, entity, own), asked_ms if as_ready else None)
        values = [value for _, value in packed]
        found = read_values(group, [None, *values], asked_ms, as_newest=True)
        of_ms = newest_asked_ms(group, asked_ms, found.ages_ms[1])
        assert asked_ms <= of_ms <= max(asked_ms, int(times_of(own).max()) + group.delay + 1)
        expected = values_at(group, entity, log, pa.array([name]), [of_ms])
        assert {one: column[1] for one, column in found.columns.items()} == {
            feature.name: python_values(flat(expected[feature.name]))[0] for feature in group.features
        }
        assert expected[group.age_column].to_pylist() == [
            None if found.ages_ms[1] is None else found.ages_ms[1] + of_ms - asked_ms
        ]


@pytest.mark.parametrize("group", [*GROUPS, *EVERYTHING], ids=lambda group: group.name)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 40),
    after_ms=st.integers(-3_000, 3_000) | st.integers(-10 * DAY_MS, 60 * DAY_MS),
    as_newest=st.booleans(),
)
def test_each_of_many_is_given_what_it_is_given_alone(
    group: FeatureGroup, seed: int, after_ms: int, as_newest: bool
) -> None:
    """Many are looked for in arrays, one by one in none."""
    entity = group.entities[0]
    log, _ = history(group, seed)
    newest_ms = int(times_of(log).max())
    if group.cadence is Cadence.EVENT:
        stored = tiles(group, entity, log)
    else:
        stored = backfill(group, entity, log, newest_ms - 2 * DAY_MS, newest_ms + DAY_MS)
    values: list[bytes | None] = [None, *(value for _, value in pack(group, entity, stored))]
    asked_ms = newest_ms + after_ms
    alone = [read_values(group, [value], asked_ms, as_newest=as_newest) for value in values]
    many = read_values(group, values * 24, asked_ms, as_newest=as_newest)
    assert many.ages_ms == [one.ages_ms[0] for one in alone] * 24
    for feature in group.features:
        assert many.columns[feature.name] == [one.columns[feature.name][0] for one in alone] * 24
    for damaged in (b"", b"REEL", *(value[:-1] for value in values if value)):
        for among in ([damaged], [damaged, *values * 24]):
            with pytest.raises(PackedValueError):
                read_values(group, among, asked_ms)


@pytest.mark.parametrize("group", TILED, ids=lambda group: group.name)
def test_of_whom_the_ttl_had_passed_only_the_age_is_told_and_the_tiles_are_kept(group: FeatureGroup) -> None:
    entity = group.entities[0]
    log, names = history(group, 7)
    newest_ms = int(times_of(log).max())
    asked_ms = newest_ms + group.ttl_ms + 1
    packed = list(pack(group, entity, tiles(group, entity, log), asked_ms))
    nobody = unpack_values(group, [spoiled(value) for _, value in packed], asked_ms)
    assert nobody.equals(values_at(group, entity, log, pa.array(names), np.full(len(names), asked_ms)))
    assert all(nobody[feature.name].null_count == len(names) for feature in group.features)
    assert all(int.from_bytes(value[LAST_EDGE_AT:HEAD_BYTES], "little") == HEAD_BYTES for _, value in packed)
    assert unpack(group, entity, packed).equals(
        unpack(group, entity, list(pack(group, entity, tiles(group, entity, log))))
    )


@pytest.mark.parametrize("group", TILED, ids=lambda group: group.name)
def test_no_tile_is_read_from_the_last_event_to_the_next_edge_of_a_window(group: FeatureGroup) -> None:
    entity = group.entities[0]
    log, names = history(group, 7)
    packed = list(pack(group, entity, tiles(group, entity, log)))
    for name, value in packed:
        own = log.filter(pa.compute.equal(log[entity], name))
        first_ms = int(times_of(own).max()) + group.delay + 1
        edges_ms = sorted(
            start_ms + hop_ms + back_ms
            for feature in group.features
            for back_ms in {back for span in feature.spans for back in (span.since_ms, span.until_ms) if back}
            for hop_ms in [group.tile_ms(feature)]
            for start_ms in {int(at) - int(at) % hop_ms for at in times_of(own)}
        )
        next_ms = next((one + group.delay for one in edges_ms if one + group.delay > first_ms), first_ms + DAY_MS)
        for asked_ms in {first_ms, next_ms - 1}:
            expected = values_at(group, entity, log, pa.array([name]), [asked_ms])
            assert unpack_values(group, [spoiled(value)], asked_ms).equals(expected)
        with pytest.raises(PackedValueError, match="damaged"):
            unpack_values(group, [spoiled(value)], first_ms - 200 * DAY_MS)
    assert len(packed) == len(names) > 1


@pytest.mark.parametrize("group", TILED, ids=lambda group: group.name)
def test_a_value_is_as_small_as_it_is_alone(group: FeatureGroup) -> None:
    """However many others are packed with it, and whether or not it has anything in a list."""
    entity = group.entities[0]
    parts = [history(group, seed)[0] for seed in range(40)]
    names = [f"{entity}-{place}" for place in range(len(parts))]
    logs = [part.set_column(part.column_names.index(entity), entity, pa.array([name] * part.num_rows))
            for part, name in zip(parts, names, strict=True)]  # fmt: skip
    whole = dict(pack(group, entity, tiles(group, entity, pa.concat_tables(logs))))
    for name, log in zip(names, logs, strict=True):
        alone = len(dict(pack(group, entity, tiles(group, entity, log)))[name])
        assert abs(len(whole[name]) - alone) < 64 + 0.02 * alone  # Arrow may say of a column that nothing is null


def test_rows_are_ready_from_the_instant_that_the_writer_says() -> None:
    group, entity = USER_VIEWING_HISTORY, "profile_id"
    log, _ = history(group, 7)
    tiled = tiles(group, entity, log)
    late_ms = int(times_of(log).max()) + 20 * DAY_MS
    at_once = [spoiled(value) for _, value in pack(group, entity, tiled, late_ms)]
    found = read_values(group, at_once, late_ms)
    assert found.columns["recent_titles"] == unpack_values(group, at_once, late_ms)["recent_titles"].to_pylist()
    otherwise = [spoiled(value) for _, value in pack(group, entity, tiled)]
    with pytest.raises(PackedValueError, match="damaged"):
        read_values(group, otherwise, late_ms)


def test_a_value_of_the_layout_before_is_refused() -> None:
    group, entity = USER_VIEWING_HISTORY, "profile_id"
    (value, *_) = [value for _, value in pack(group, entity, tiles(group, entity, history(group, 7)[0]))]
    with pytest.raises(PackedValueError, match="another layout; write the group to the online store again"):
        read_values(group, [value, b"REEL\x01" + value[5:]], 0)
