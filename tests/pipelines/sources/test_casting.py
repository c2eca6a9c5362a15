"""Casting: against Python's own integers, datetimes and decimals, value by value."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.casting import can_cast, cast

INSTANT = pa.timestamp("ms", tz="UTC")
AT = datetime(2026, 1, 5, 8, 0, 0, 123_000, UTC)
BAD = object()


def outcome(values: pa.Array, target: pa.DataType) -> list[object]:
    found, bad = cast(values, target)
    assert found.type == target
    assert all(value is None for value, is_bad in zip(found.to_pylist(), bad, strict=True) if is_bad)
    return [BAD if is_bad else value for value, is_bad in zip(found.to_pylist(), bad, strict=True)]


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        (pa.array([1, None, -5], pa.int32()), pa.int64(), [1, None, -5]),
        (pa.array([2**31 - 1, 2**31, None, -(2**31), -(2**31) - 1]), pa.int32(), [2**31 - 1, BAD, None, -(2**31), BAD]),
        (pa.array([1.0, 1.5, float("nan"), 2.0**70]), pa.int64(), [1, BAD, BAD, BAD]),
        (pa.array([Decimal("7.00"), Decimal("7.01")]), pa.int64(), [7, BAD]),
        (pa.array(["12", "-3", "", "x", "1e3", None]), pa.int64(), [12, -3, BAD, BAD, BAD, None]),
        (pa.array([3, 2**53 + 1]), pa.float64(), [3.0, BAD]),
        (pa.array(["1.5", "one"]), pa.float64(), [1.5, BAD]),
        (pa.array(["true", "false", "yes"]), pa.bool_(), [True, False, BAD]),
        (pa.array([17, None]), pa.string(), ["17", None]),
        (pa.array([b"caf\xc3\xa9", b"\xff"]), pa.string(), ["café", BAD]),
        (pa.array([UUID(int=7).bytes], pa.binary(16)), pa.string(), [str(UUID(int=7))]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array([["a"], [], None], pa.large_list(pa.large_string())), pa.list_(pa.string()), [["a"], [], None]),
        (pa.nulls(2), pa.int64(), [None, None]),
        (pa.array([], pa.int32()), pa.int64(), []),
        (pa.array([date(2026, 1, 5)]), INSTANT, [datetime(2026, 1, 5, tzinfo=UTC)]),
        (pa.array([int(AT.timestamp() * 1000)], pa.int64()), INSTANT, [AT]),
        (
            pa.array(["2026-01-05T08:00:00.123Z", "2026-01-05 08:00:00.123", "2026-01-05T09:00:00.1239+01:00", "soon"]),
            INSTANT,
            [AT, AT, AT, BAD],
        ),
    ],
)
def test_known_values(values, target, expected):
    assert can_cast(values.type, target)
    assert outcome(values, target) == expected


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (pa.struct([("a", pa.string())]), pa.string()),
        (pa.bool_(), pa.int64()),
        (pa.int64(), pa.bool_()),
        (pa.float64(), pa.string()),
        (pa.float64(), INSTANT),
        (pa.list_(pa.int64()), pa.list_(pa.string())),
        (pa.string(), pa.list_(pa.string())),
        (pa.timestamp("us"), pa.int64()),
    ],
)
def test_what_would_be_a_guess_is_refused(source, target):
    assert not can_cast(source, target)


@given(
    micros=st.lists(st.integers(-(10**15), 10**15) | st.none(), max_size=20),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from([None, "UTC", "+02:00"]),
)
def test_instants_of_any_unit_and_zone_lose_only_parts_of_a_millisecond(micros, unit, zone):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    counts = [None if one is None else one * per_second // 10**6 for one in micros]
    found = outcome(pa.array(counts, pa.int64()).cast(pa.timestamp(unit, tz=zone)), INSTANT)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert found == [
        None if one is None else epoch + timedelta(milliseconds=one * 1000 // per_second) for one in counts
    ]


@given(st.lists(st.integers(-(2**40), 2**40), max_size=60))
def test_of_many_exactly_those_that_do_not_fit_are_bad(numbers):
    _, bad = cast(pa.chunked_array([numbers[:7], numbers[7:]], pa.int64()), pa.int32())
    assert np.flatnonzero(bad).tolist() == [n for n, one in enumerate(numbers) if not -(2**31) <= one < 2**31]
