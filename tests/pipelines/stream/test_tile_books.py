"""Tiles of entities that are no people: rows wait until what is older has come, and count once, whatever is revised."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns import milliseconds
from features.packing import unpack
from features.stretches import NEVER_MS
from features.tiles import tiles
from features.windows import DAY_MS, floor_ms
from pipelines.stream.targets import SETTLING_MS, TARGETS
from pipelines.stream.tile_books import LogPart, TileBook
from serving.online_store import open_online_store
from tests.features.random_log import random_log

SHARED = [one for one in TARGETS if one.entity in ("platform", "cdn_region", "channel_id")]
NOBODY = pa.array([], pa.string())


def stored(store, target):
    """All tiles there are, in their order."""
    name = target.group.stored_as(target.entity)
    keys = sorted(store.keys(name))
    values = list(zip(keys, store.get_many(name, keys), strict=True))
    return unpack(target.group, target.entity, values) if values else None


@pytest.mark.parametrize("target", SHARED, ids=[one.name for one in SHARED])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6))
def test_what_is_stored_is_what_came_before_the_instant(target, seed, steps):
    rng = np.random.default_rng(seed)
    log = random_log(rng, target.group.source, target.group.entities, int(rng.integers(1, 60)), keys=3)
    log = log.filter(log[target.entity].is_valid())
    times_ms = milliseconds(log["event_timestamp"])
    if not log.num_rows:
        return
    since_ms = floor_ms(int(times_ms.min()), DAY_MS)
    order = rng.permutation(log.num_rows)  # partitions are read in no order
    parts = np.array_split(order, steps)
    instants = np.sort(rng.choice(times_ms, steps) + rng.integers(0, 2, steps))
    with TemporaryDirectory() as folder, open_online_store(f"lmdb://{Path(folder) / 'store'}") as store:
        book, there = TileBook(target, since_ms), np.empty(0, np.int64)
        for part, until_ms in zip([*parts, np.empty(0, np.int64)], [*instants.tolist(), NEVER_MS], strict=True):
            there = np.concatenate([there, part])
            lost = rng.choice(there, rng.integers(0, 2) if len(there) else 0, replace=False)
            there = there[~np.isin(there, lost)]
            rows, gone = log.take(pa.array(there)), log.take(pa.array(lost))
            changed = gone[target.entity].combine_chunks().unique()
            left = rows.filter(pc.is_in(rows[target.entity], value_set=changed))
            changed_ms = int(milliseconds(gone["event_timestamp"]).min()) if gone.num_rows else 0
            added = log.take(pa.array(part))
            made = book.apply(LogPart(added, changed, changed_ms, left, NOBODY, until_ms), store)
            store.put_many(target.group.stored_as(target.entity), made)
            waiting_ms = times_ms[there][times_ms[there] >= until_ms]
            assert book.waits_since_ms == (int(waiting_ms.min()) if len(waiting_ms) else None)
            settled = rows.filter(pa.array(milliseconds(rows["event_timestamp"]) < until_ms))
            expected = tiles(target.group, target.entity, settled)
            found = stored(store, target)
            assert (expected.num_rows == 0) if found is None else found.num_rows <= expected.num_rows
            if found is not None:  # of the past only what some window still reaches is kept
                assert set(map(repr, found.to_pylist())) <= set(map(repr, expected.to_pylist()))
                assert set(found[target.entity].to_pylist()) == set(expected[target.entity].to_pylist())
        assert book.waits_since_ms is None


def test_they_wait_for_less_than_the_delay():
    assert 0 < SETTLING_MS < min(one.group.delay for one in SHARED)
