"""Text columns as distinct values: the same rows as before, and nothing in a dictionary that no row has."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.distinct import codes_of, encoded, is_one_of, spread

FEW = st.lists(st.sampled_from(["", "a", "b", "ä", None]), max_size=12)


def assert_tidy(column, expected):
    """The rows as expected; each value of the dictionary is there once, is not null, and is some row's."""
    assert column.type == pa.dictionary(pa.int32(), pa.string())
    assert column.to_pylist() == expected
    assert sorted(column.dictionary.to_pylist()) == sorted({value for value in expected if value is not None})


@settings(deadline=None)
@given(rows=FEW, cut=st.integers(0, 12))
def test_a_column_keeps_its_rows_in_whatever_form_it_comes(rows, cut):
    chunks = [pa.array(rows[:cut], pa.string()), pa.array(rows[cut:], pa.string())]
    dictionaries = [chunk.dictionary_encode() for chunk in chunks]
    forms = [
        pa.array(rows, pa.string()),
        pa.chunked_array(chunks, pa.string()),
        pa.chunked_array(dictionaries, pa.dictionary(pa.int32(), pa.string())),
        pa.array(rows, pa.dictionary(pa.int8(), pa.string())),
        pa.array(rows, pa.dictionary(pa.uint32(), pa.string())),
    ]
    for form in forms:
        column = encoded(form)
        assert_tidy(column, rows)
        values = column.dictionary.to_pylist()
        assert [None if code < 0 else values[code] for code in codes_of(column).tolist()] == rows


@settings(deadline=None)
@given(values=FEW, data=st.data())
def test_values_are_spread_over_rows(values, data):
    codes = data.draw(st.lists(st.integers(-1, len(values) - 1), max_size=20))
    column = spread(pa.array(values, pa.string()), np.array(codes, np.int32))
    assert_tidy(column, [None if code < 0 else values[code] for code in codes])


def test_a_dictionary_with_a_null_and_a_slice():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1], pa.int8()), pa.array(["a", None]))
    assert_tidy(encoded(column), ["a", None, None, None])
    assert encoded(pa.array(["x", "a", None, "a"]).slice(1)).to_pylist() == ["a", None, "a"]


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_membership(kind):
    column = pa.chunked_array([pa.array(["US", None], kind), pa.array(["GB", "US"], kind)])
    assert is_one_of(column, frozenset({"US"})).tolist() == [True, False, False, True]
    assert is_one_of(column, frozenset()).tolist() == [False] * 4
