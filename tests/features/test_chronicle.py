"""What was known when, against a loop over all rows."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.chronicle import Chronicle

KEYS = st.text(alphabet="abé", max_size=3)
ROWS = st.lists(st.tuples(KEYS, st.integers(-4, 4)), unique=True, max_size=25)


def chronicle_of(rows):
    ordered = sorted(rows, key=lambda row: (row[0].encode(), row[1]))
    keys, known_ms = pa.array([key for key, _ in ordered], pa.string()), np.array([ms for _, ms in ordered], np.int64)
    return Chronicle.of(keys, known_ms), ordered


def by_hand(ordered, key, at_ms):
    """The newest and the oldest row of the key, -1 where there is none."""
    own = [row for row, (name, _) in enumerate(ordered) if name == key]
    known = [row for row in own if ordered[row][1] <= at_ms]
    return (known[-1] if known else -1), (own[0] if own else -1)


@settings(deadline=None)
@given(rows=ROWS, asked=st.lists(st.tuples(KEYS | st.none(), st.integers(-6, 6)), max_size=20))
def test_the_newest_row_known_at_an_instant_and_the_first(rows, asked):
    chronicle, ordered = chronicle_of(rows)
    names = sorted({key for key, _ in asked if key is not None})
    codes = np.array([-1 if key is None else names.index(key) for key, _ in asked], np.int32)
    places = chronicle.places([pa.array(names, pa.string())], codes)
    expected = [by_hand(ordered, key, at_ms) for key, at_ms in asked]
    if not len(places):
        assert all(one == (-1, -1) for one in expected)
        return
    newest = chronicle.latest(places, np.array([at_ms for _, at_ms in asked], np.int64))
    assert list(zip(newest[0].tolist(), chronicle.first(places)[0].tolist(), strict=True)) == expected


@pytest.mark.parametrize("width", [1, 64])
def test_keys_of_one_width_and_of_many(width):
    chronicle, _ = chronicle_of([(letter * width, 1) for letter in "ace"])
    assert chronicle.find(pa.array([letter * width for letter in "dcbaez"])).tolist() == [-1, 1, -1, 0, 2, -1]
    assert chronicle.find(pa.array(["aa" * width, "", "c" * width])).tolist() == [-1, -1, 1]


def test_other_names_nobody_has_are_left_out():
    chronicle, _ = chronicle_of([("a", 1), ("b", 2)])
    places = chronicle.places([pa.array(["x", "y"]), pa.array(["b", "z"])], np.array([0, 1, -1, 0], np.int32))
    assert places.tolist() == [[1, -1, -1, 1]]


def test_nothing_known():
    chronicle, _ = chronicle_of([])
    assert chronicle.find(pa.array(["a", "b"])).tolist() == [-1, -1]
    assert chronicle.places([pa.array(["a"])], np.array([0], np.int32)).shape == (0, 1)


def test_it_travels_to_other_processes():
    chronicle, _ = chronicle_of([("a", 1), ("b", 2)])
    assert pickle.loads(pickle.dumps(chronicle)).find(pa.array(["b"])).tolist() == [1]
