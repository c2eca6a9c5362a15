"""Between Arrow columns and NumPy arrays, against numbers written down by hand."""

import numpy as np
import pyarrow as pa
import pytest

from features.columns import TIMESTAMP, as_declared, milliseconds, timestamps
from features.errors import LogError

AT_MS = 1_767_225_600_123


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("start", [0, 1])
def test_instants_of_any_unit_are_told_in_milliseconds(unit, start):
    instants = pa.array([7, -1, 0, AT_MS], pa.timestamp("ms", "UTC")).cast(pa.timestamp(unit, "UTC"))
    assert milliseconds(instants.slice(start)).tolist() == [7, -1, 0, AT_MS][start:]
    chunks = pa.chunked_array([instants.slice(1, 1), instants.slice(2)])
    assert milliseconds(chunks).tolist() == [-1, 0, AT_MS]


def test_seconds_and_whole_numbers_are_instants_too():
    assert milliseconds(pa.array([-1, 2], pa.timestamp("s"))).tolist() == [-1000, 2000]
    assert milliseconds(pa.array([-1, 2], pa.int32())).tolist() == [-1, 2]


def test_what_is_within_a_millisecond_is_of_its_beginning():
    assert milliseconds(pa.array([1_999, -1], pa.timestamp("us"))).tolist() == [1, -1]


def test_an_instant_must_be_there():
    with pytest.raises(LogError, match=r"when has 1 null\(s\)"):
        milliseconds(pa.array([0, None], TIMESTAMP), "when")


def test_there_and_back():
    instants_ms = np.array([-5, 0, AT_MS])
    assert timestamps(instants_ms).type == TIMESTAMP
    assert milliseconds(timestamps(instants_ms)).tolist() == instants_ms.tolist()


def test_columns_are_brought_to_what_is_declared():
    schema = pa.schema([("name", pa.string()), ("at", TIMESTAMP)])
    stored = pa.table(
        {"more": [1], "at": pa.array([5_000], pa.timestamp("us", "UTC")), "name": pa.array(["a"], pa.large_string())}
    )
    declared = as_declared(stored, schema, "the table")
    assert declared.schema == schema
    assert declared.to_pylist() == pa.table({"name": ["a"], "at": timestamps(np.array([5]))}).to_pylist()
    assert as_declared(declared, schema, "the table").equals(declared)
    with pytest.raises(LogError, match="the table lacks the column"):
        as_declared(stored.select(["at"]), schema, "the table")
    with pytest.raises(LogError, match="the table does not fit its declaration"):
        as_declared(pa.table({"name": ["a"], "at": ["noon"]}), schema, "the table")
