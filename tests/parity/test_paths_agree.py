"""The same number for the same instant on every path: log, tiles, backfill + join, online store."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from features.backfill import backfill
from features.groups import GROUPS
from features.packing import pack, unpack_values
from features.playbacks import viewing_log
from features.point_in_time import as_of_join
from features.tiles import merge_tiles, tiles, values_from_tiles
from features.values import values_at
from features.windows import Cadence, valued_at_ms
from tests.features import worlds
from tests.features.random_log import random_log, random_questions, times_of
from tests.features.vocabulary import EVERYTHING

CASES = [
    pytest.param(group, entity, id=f"{group.name}-{entity}")
    for group in (*GROUPS, *EVERYTHING)
    for entity in group.entities
]
each_group = pytest.mark.parametrize(("group", "entity"), CASES)
# Event groups store tiles; hourly and daily ones store values at boundaries.
each_group_with_boundaries = pytest.mark.parametrize(
    ("group", "entity"), [case for case in CASES if case.values[0].cadence is not Cadence.EVENT]
)


def logs(group, rng):
    """A log of random rows, and where the group reads viewing one of small worlds."""
    yield random_log(rng, group.source, group.entities, 1500)
    if group.source.name == "viewing_log":
        small = [worlds.make_world(rng, f"w{number}") for number in range(60)]
        yield viewing_log(worlds.playback_table(small, rng), worlds.titles_table(small))


@each_group
def test_tiles_kept_up_to_an_instant_equal_the_log(group, entity):
    rng = np.random.default_rng(1)
    for log in logs(group, rng):
        times = times_of(log)
        names, instants = random_questions(rng, log, entity, 40)
        for asked in instants[: 25 if group in GROUPS else 5]:
            # What a stream has seen by then, in three batches that came in any order.
            seen = log.filter(pa.array(times < valued_at_ms(int(asked), group.cadence, group.delay)))
            batch_of = rng.integers(0, 3, seen.num_rows)
            parts = [tiles(group, entity, seen.filter(pa.array(batch_of == batch))) for batch in (2, 0, 1)]
            kept = merge_tiles(group, entity, parts)
            when = np.full(len(names), asked)
            exact = values_at(group, entity, log, names, when)
            assert values_from_tiles(group, entity, kept, names, when).equals(exact)
            if group.cadence is Cadence.EVENT:
                store = dict(pack(group, entity, kept))
                assert unpack_values(group, [store.get(name) for name in names.to_pylist()], int(asked)).equals(exact)


@each_group_with_boundaries
def test_joining_the_backfill_equals_the_log(group, entity):
    rng = np.random.default_rng(2)
    for log in logs(group, rng):
        times = times_of(log)
        rows = backfill(group, entity, log, int(times.min()), int(times.max()) + group.ttl_ms + 86_400_000)
        names, instants = random_questions(rng, log, entity, 2000)
        left = pa.table({entity: names, "t": pa.array(instants * 1000).cast(pa.timestamp("us", tz="UTC"))})
        columns = [feature.name for feature in group.features]
        joined = as_of_join(
            left, rows, key=entity, left_time="t", ttl_ms=group.ttl_ms, cadence=group.cadence, delay_ms=group.delay,
            columns=columns,
        )  # fmt: skip
        exact = values_at(group, entity, log, names, instants).select(columns)
        assert joined.select(columns).equals(exact)
        assert exact[columns[0]].null_count < exact.num_rows * 0.97


@each_group_with_boundaries
def test_a_backfill_in_pieces_is_the_backfill(group, entity):
    rng = np.random.default_rng(3)
    log = random_log(rng, group.source, group.entities, 1500)
    start, end = int(times_of(log).min()), int(times_of(log).max())
    cuts = [start, *sorted(int(cut) for cut in rng.integers(start, end, 5)), end]
    pieces = [backfill(group, entity, log, *edges) for edges in pairwise(cuts)]
    whole = backfill(group, entity, log, start, end)
    assert pa.concat_tables(pieces).sort_by([(entity, "ascending"), ("event_timestamp", "ascending")]).equals(whole)
