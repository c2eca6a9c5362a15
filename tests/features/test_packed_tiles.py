"""Tiles of entities as bytes: what comes back is what went in, each entity's by itself; damaged bytes are refused."""

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.packed_tiles import tiles_from_bytes, tiles_to_bytes

ELEMENT = pa.struct([("at", pa.timestamp("ms", "UTC")), ("id", pa.string()), ("value", pa.int64())])
SCHEMA = pa.schema(
    [
        ("length", pa.int64()),
        ("start", pa.timestamp("ms", "UTC")),
        ("by_key", pa.map_(pa.string(), pa.int64())),
        ("recent", pa.list_(ELEMENT)),
        ("sketch", pa.binary()),
    ]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.integers(-(10**13), 10**13)
ELEMENTS = st.fixed_dictionaries({"at": INSTANTS | st.none(), "id": st.text(max_size=3), "value": NUMBERS | st.none()})
ROWS = st.fixed_dictionaries(
    {
        "length": NUMBERS | st.none(),
        "start": INSTANTS,
        "by_key": st.none() | st.lists(st.tuples(st.text(max_size=3), NUMBERS), max_size=3),
        "recent": st.none() | st.lists(ELEMENTS, max_size=3),
        "sketch": st.none() | st.binary(max_size=3),
    }
)
ENTITIES = st.lists(st.lists(ROWS, max_size=3), max_size=5)


def table(rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def edges(entities):
    return np.cumsum([0, *map(len, entities)])


def some():
    row = {"length": 1, "start": 2, "by_key": [("a", 3)], "recent": [{"at": 4, "id": "b", "value": 5}], "sketch": b"c"}
    return next(tiles_to_bytes(table([row, row]), np.array([0, 2])))


@settings(deadline=None)
@given(entities=ENTITIES, before=st.lists(ROWS, max_size=2))
def test_what_comes_back_is_what_went_in(entities, before):
    rows = [row for one in entities for row in one]
    sliced = table([*before, *rows]).slice(len(before))
    bodies = list(tiles_to_bytes(sliced, edges(entities)))
    found, counts = tiles_from_bytes(SCHEMA, bodies)
    assert found.schema == SCHEMA
    assert found.equals(table(rows))
    assert counts == [len(one) for one in entities]


@settings(deadline=None)
@given(entities=ENTITIES)
def test_bytes_of_one_do_not_depend_on_others(entities):
    together = list(tiles_to_bytes(table(row for one in entities for row in one), edges(entities)))
    alone = [next(tiles_to_bytes(table(one), np.array([0, len(one)]))) for one in entities]
    assert together == alone


def test_a_list_that_is_null_may_have_had_something_in_it():
    lengths, values = pa.array([0, 2, 3], pa.int32()), pa.array([1, 2, 3])
    hidden = pa.ListArray.from_arrays(lengths, values, mask=pa.array([True, False]))
    rows = pa.table({"list": hidden})
    found, _ = tiles_from_bytes(rows.schema, list(tiles_to_bytes(rows, np.array([0, 1, 2]))))
    assert found["list"].to_pylist() == [None, [3]]


@pytest.mark.parametrize(
    "change",
    [
        lambda leaves: leaves[:-1],  # a column is missing
        lambda leaves: [*leaves, []],
        lambda leaves: [leaves[0][:1], *leaves[1:]],  # one is shorter
        lambda leaves: [*leaves[:2], [2, 1], *leaves[3:]],  # a map says it is longer
        lambda leaves: [*leaves[:2], [-1, 3], *leaves[3:]],
        lambda leaves: [["no number", 1], *leaves[1:]],
        lambda leaves: [leaves[0], [None, "no instant"], *leaves[2:]],
        lambda leaves: [*leaves[:2], ["a", 1], *leaves[3:]],
        lambda leaves: [*leaves[:3], [1, 2], *leaves[4:]],  # a number where a text is
        lambda leaves: [[2**64 - 1, 1], *leaves[1:]],
        lambda leaves: 5,
        lambda leaves: [5] * len(leaves),
        lambda leaves: {"a": 1},
    ],
)
def test_what_is_no_tiles_is_refused(change):
    damaged = msgpack.packb(change(msgpack.unpackb(some())))
    for bodies in ([damaged], [some(), damaged], [damaged, some()]):
        with pytest.raises(ValueError, match=r"\S"):
            tiles_from_bytes(SCHEMA, bodies)


def test_what_one_lacks_is_not_taken_from_another():
    """The lengths of all together would fit."""
    leaves = msgpack.unpackb(some())
    more, less = [*leaves], [*leaves]
    more[3], more[4] = ["a", "a", "a"], [3, 3, 3]
    less[3], less[4] = ["a"], [3]
    with pytest.raises(ValueError, match="different lengths"):
        tiles_from_bytes(SCHEMA, [msgpack.packb(more), msgpack.packb(less)])


@given(body=st.binary(max_size=40), cut=st.integers(0, 30))
def test_any_bytes_are_tiles_or_refused(body, cut):
    for bytes_ in (body, some()[:cut] + body, some()[:cut]):
        try:
            found, counts = tiles_from_bytes(SCHEMA, [bytes_])
        except ValueError:
            continue
        found.validate(full=True)
        assert counts == [found.num_rows]
