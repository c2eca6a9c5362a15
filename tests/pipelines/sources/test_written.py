"""Rows written down and read again are the rows that they were."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from pipelines.sources.written import as_json, from_json

SCHEMA = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("flag", pa.bool_()),
        pa.field("whole", pa.int64()),
        pa.field("real", pa.float64()),
        pa.field("local", pa.timestamp("us")),
        pa.field("instant", pa.timestamp("us", tz="UTC")),
        pa.field("day", pa.date32()),
        pa.field("clock", pa.time64("us")),
        pa.field("price", pa.decimal128(9, 2)),
        pa.field("raw", pa.binary()),
        pa.field("fixed", pa.binary(4)),
        pa.field("key", pa.uuid()),
        pa.field("who", pa.struct([pa.field("user", pa.string()), pa.field("since", pa.timestamp("us"))])),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("counts", pa.map_(pa.string(), pa.int64())),
    ]
)
FULL = {
    "text": "ä\u0000",
    "flag": False,
    "whole": 2**62 + 1,
    "real": 0.1,
    "local": datetime(2026, 3, 1, 12, 0, 0, 123_456),
    "instant": datetime(2026, 3, 1, 12, tzinfo=UTC),
    "day": date(2024, 2, 29),
    "clock": time(23, 59, 59, 999_999),
    "price": Decimal("12.30"),
    "raw": b"\x00\xff",
    "fixed": b"abcd",
    "key": UUID("12345678123456781234567812345678"),
    "who": {"user": "ann", "since": datetime(2020, 1, 1)},
    "tags": [],
    "counts": [("a", 0)],
}


def test_rows_of_every_type_come_back_as_they_were() -> None:
    rows = pa.Table.from_pylist([FULL, dict.fromkeys(SCHEMA.names), {**FULL, "real": float("inf"), "text": ""}], SCHEMA)
    again, at = from_json(as_json(rows), SCHEMA)
    assert again.to_pylist() == rows.to_pylist()
    assert at.tolist() == [0, 1, 2]


def test_columns_come_and_go() -> None:
    written = as_json(pa.table({"kept": [1, 2], "gone": ["x", "y"]}))
    again, _ = from_json(written, pa.schema([pa.field("kept", pa.int32()), pa.field("new", pa.string())]))
    assert again.to_pylist() == [{"kept": 1, "new": None}, {"kept": 2, "new": None}]


@pytest.mark.parametrize("value", [b"", None, b"{", b"[]", b'{"day": "yesterday"}', b'{"day": 3}', b'{"who": "ann"}'])
def test_what_is_no_row_of_today_is_left_out_and_stops_nothing(value: bytes | None) -> None:
    again, at = from_json([b'{"text": "a"}', value, b'{"text": "b"}'], SCHEMA)
    assert again["text"].to_pylist() == ["a", "b"]
    assert at.tolist() == [0, 2]
