"""Rows by key against a dictionary of lists."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stream.segments import Segments

SCHEMA = pa.schema([("value", pa.int64())])
batches = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=12), max_size=12)


def filled(parts, tidy=None):
    segments = Segments(SCHEMA, tidy)
    for part in parts:
        keys = np.array([key for key, _ in part], np.uint64)
        segments.append(keys, pa.table({"value": pa.array([value for _, value in part], pa.int64())}))
    return segments


def pairs(keys, rows):
    return sorted(zip(keys.tolist(), rows["value"].to_pylist(), strict=True))


@given(batches, st.sets(st.integers(0, 12)))
def test_taken_are_all_rows_of_the_keys(parts, wanted):
    segments = filled(parts)
    keys = np.array(sorted(wanted), np.uint64)
    assert pairs(*segments.take(keys)) == sorted(pair for part in parts for pair in part if pair[0] in wanted)
    assert segments.size == sum(map(len, parts))


@given(batches)
def test_what_is_not_kept_is_gone(parts):
    segments = filled(parts)
    segments.keep(lambda keys, rows: np.asarray(rows["value"]) % 2 == 0)
    left = [pair for part in parts for pair in part if pair[1] % 2 == 0]
    assert pairs(*segments.take(np.arange(10, dtype=np.uint64))) == sorted(left)
    assert sorted(segments.rows["value"].to_pylist()) == sorted(value for _, value in left)


@given(batches)
def test_runs_are_few_however_many_are_appended(parts):
    segments = filled(parts)
    rows = sum(map(len, parts))
    assert len(segments._runs) <= max(1, rows).bit_length()


@given(batches)
def test_tidying_keeps_what_the_rows_say(parts):
    def summed(rows):  # of one key, 0: the sums are what the rows say
        return np.zeros(1, np.uint64), pa.table({"value": pa.array([pa.compute.sum(rows["value"]).as_py() or 0])})

    one_key = [[(0, value) for _, value in part] for part in parts]
    _, rows = filled(one_key, summed).take(np.zeros(1, np.uint64))
    assert sum(rows["value"].to_pylist()) == sum(value for part in parts for _, value in part)
