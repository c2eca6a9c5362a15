"""Rows of every event of the contract for the tests of its codec, and what fastavro makes of them."""

import io
import json
from collections.abc import Iterable
from typing import Any

import fastavro
import pyarrow as pa
from hypothesis import strategies as st

from pipelines.contract.events import Column, EventSchema

Row = dict[str, Any]  # flat: column name to value, instants in milliseconds

_LED = {"source": "recording_source"}  # the property that is called as a column of the envelope, and its own column
_LAST_MS = 4_102_444_799_999  # 2099-12-31T23:59:59.999Z
_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40)


def flat_rows(event: EventSchema) -> st.SearchStrategy[Row]:
    """Rows that the contract allows: consent whole or absent, enum symbols, all lengths of numbers and texts."""
    consent = [column for column in event.columns if column.path[:2] == ("envelope", "consent")]
    others = [column for column in event.columns if column not in consent and column.name != "event_name"]
    given = st.fixed_dictionaries({column.name: st.booleans() for column in consent})
    absent = st.just(dict.fromkeys(column.name for column in consent))
    values = st.fixed_dictionaries({column.name: _values(column) for column in others})
    return st.tuples(values, given | absent).map(lambda parts: {"event_name": event.name, **parts[0], **parts[1]})


def _values(column: Column) -> st.SearchStrategy[Any]:
    if column.symbols:
        values: st.SearchStrategy[Any] = st.sampled_from(column.symbols)
    elif pa.types.is_list(column.arrow):
        values = st.lists(_TEXT, max_size=5)
    elif pa.types.is_string(column.arrow):
        values = _TEXT
    elif pa.types.is_timestamp(column.arrow):
        values = st.integers(0, _LAST_MS)
    elif pa.types.is_floating(column.arrow):
        values = st.floats(allow_nan=False, allow_infinity=False)
    elif pa.types.is_boolean(column.arrow):
        values = st.booleans()
    else:
        bits = column.arrow.bit_width - 1
        values = st.integers(-(2**bits), 2**bits - 1) | st.integers(-200, 200)
    return values | st.none() if column.nullable else values


def table_of(event: EventSchema, rows: Iterable[Row]) -> pa.Table:
    """The rows as a flat table."""
    return pa.Table.from_pylist(list(rows), schema=event.arrow)


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a flat table, instants in milliseconds."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.int64()))
    return table.to_pylist()


def example_row(event: EventSchema, index: int) -> Row:
    """An ordinary row: one allowed value for each column, some nulls, different in every row."""
    row: Row = {}
    for column in event.columns:
        if column.symbols:
            row[column.name] = column.symbols[index % len(column.symbols)]
        elif pa.types.is_list(column.arrow):
            row[column.name] = [f"genre {number}" for number in range(index % 4)]
        elif pa.types.is_string(column.arrow):
            row[column.name] = f"{column.name}-{index}-é"
        elif pa.types.is_timestamp(column.arrow):
            row[column.name] = 1_770_000_000_000 + index
        elif pa.types.is_boolean(column.arrow):
            row[column.name] = index % 2 == 0
        elif pa.types.is_floating(column.arrow):
            row[column.name] = index / 8
        else:
            row[column.name] = index * 1_000
        if column.nullable and index % 5 == 0:
            row[column.name] = None
    return {**row, "event_name": event.name}


def fastavro_body(schema: Any, row: Row) -> bytes:
    """The Avro body that fastavro writes for a flat row."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(json.loads(json.dumps(schema))), nested(row))
    return buffer.getvalue()


def nested(row: Row) -> Row:
    """A flat row as the record of the schema, fastavro's form."""
    properties = dict(row)
    consent = {
        name: properties.pop(f"consent_{name}", None) for name in ("analytics", "personalization", "ad_targeting")
    }
    envelope = {**properties, "consent": None if consent["analytics"] is None else consent}
    led = {field: row[column] for field, column in _LED.items() if column in row}
    return {**properties, **led, "envelope": envelope}


def fastavro_row(schema: Any, body: bytes, reader: Any = None) -> Row:
    """The flat row that fastavro reads from a body, which must end where the record does."""
    stream = io.BytesIO(body)
    parsed = fastavro.parse_schema(json.loads(json.dumps(_plain_longs(schema))))
    wanted = fastavro.parse_schema(json.loads(json.dumps(_plain_longs(reader)))) if reader is not None else None
    record: Any = fastavro.schemaless_reader(stream, parsed, wanted)
    assert stream.tell() == len(body)
    envelope = record.pop("envelope")
    consent = envelope.pop("consent") or {}
    flags = {f"consent_{name}": consent.get(name) for name in ("analytics", "personalization", "ad_targeting")}
    return {**envelope, **flags, **{_LED.get(field, field): value for field, value in record.items()}}


def _plain_longs(schema: Any) -> Any:
    """The schema without logical types, so that instants stay numbers."""
    if isinstance(schema, list):
        return [_plain_longs(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: _plain_longs(value) for key, value in schema.items() if key != "logicalType"}
    return schema
