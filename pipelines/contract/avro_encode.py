"""A flat Arrow table of one event into Avro bodies, in bulk.

input:  the event's schema and a table with its columns
does:   turns each field into a column of bytes, then lets Arrow join the columns row by row
output: one Avro body for each row, byte for byte what a per-message encoder writes
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contract.avro_cursor import END_MS, FIRST_MS, Array
from pipelines.contract.avro_schema import Avro, expand
from pipelines.contract.events import Column, EventSchema
from pipelines.errors import EncodeError

CHUNK_ROWS = 16_384  # the working arrays of a chunk fit in a core's cache


def encode(schema: EventSchema, table: pa.Table) -> list[bytes]:
    """Encode each row of `table` as the event `schema`; a body has no header (see `codec.wire_format`).

    Columns go by name, in any order, and are cast to the contract's types where nothing is lost. `event_name` may be
    left out, as may nullable columns, which are then null. Raises `EncodeError`, naming the column and the first
    row, for a column that is unknown or missing, a null that may not be, an unknown enum symbol, a NaN, or a
    consent of which only a part is given.
    """
    return [body for bodies in encode_in_chunks(schema, table) for body in bodies]


def encode_in_chunks(schema: EventSchema, table: pa.Table) -> Iterator[list[bytes]]:
    """`encode`, some thousands of rows at a time; the columns are checked before the first of them."""
    columns = _conform(schema, table)
    record = expand(schema.avro)
    separator = pa.scalar(b"", pa.binary())
    for start in range(0, table.num_rows, CHUNK_ROWS):
        chunk = {name: column.slice(start, CHUNK_ROWS) for name, column in columns.items()}
        parts = _Chunk(schema, chunk, start).record(record, (), None)
        joined = pc.binary_join_element_wise(*parts, separator, null_handling="replace", null_replacement="")
        yield joined.to_pylist()


def _conform(schema: EventSchema, table: pa.Table) -> dict[str, pa.Array]:
    """The columns of `schema`, in its types and in one piece each."""
    known = {column.name for column in schema.columns}
    if unknown := [name for name in table.column_names if name not in known]:
        raise EncodeError(
            f"{schema.name} has no column {', '.join(unknown)}; it has {', '.join(c.name for c in schema.columns)}"
        )
    conformed = {}
    for column in schema.columns:
        if column.name in table.column_names:
            conformed[column.name] = _cast(schema, column, table[column.name])
        elif column.name == "event_name":
            conformed[column.name] = pa.repeat(pa.scalar(schema.name), table.num_rows)
        elif column.nullable:
            conformed[column.name] = pa.nulls(table.num_rows, column.arrow)
        else:
            raise EncodeError(f"{schema.name} needs the column {column.name}: {column.doc}")
    return conformed


def _cast(schema: EventSchema, column: Column, values: pa.ChunkedArray) -> pa.Array:
    try:
        return values.cast(column.arrow).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise EncodeError(
            f"{schema.name}.{column.name} must be {column.arrow}, received {values.type}: {error}"
        ) from error


class _Chunk:
    """Encodes some rows of a table, the first of which is row `start` of it.

    `present` (bool per row, None for all) tells in which rows the record around a field is there at all.
    """

    def __init__(self, schema: EventSchema, values: dict[str, pa.Array], start: int) -> None:
        self._schema = schema
        self._by_path = {column.path: column for column in schema.columns}
        self._values = values
        self._start = start

    def record(self, record: Avro, path: tuple[str, ...], present: Array | None) -> list[pa.Array]:
        """The byte columns of all fields of `record`, in order; null or empty where nothing is written."""
        parts: list[pa.Array] = []
        inside: Array | None
        for field in record["fields"]:
            avro, field_path = field["type"], (*path, field["name"])
            if avro["type"] == "union":
                avro = avro["branches"][1]  # the contract allows no union but [null, type]
                given = self._given(avro, field_path)
                parts.append(_bytes(np.where(given, 2, 0), present))
                inside = given if present is None else given & present
            else:
                self._check_not_null(avro, field_path, present)
                inside = present
            if avro["type"] == "record":
                parts += self.record(avro, field_path, inside)
            else:
                parts += self._value(avro, self._by_path[field_path], inside)
        return parts

    def _given(self, avro: Avro, path: tuple[str, ...]) -> Array:
        """The rows in which a nullable field is not null; a record's columns must be null together."""
        if avro["type"] != "record":
            return _valid(self._values[self._by_path[path].name])
        columns = [column for column in self._by_path.values() if column.path[: len(path)] == path]
        valid = np.stack([_valid(self._values[column.name]) for column in columns])
        given: Array = np.logical_or.reduce(valid)
        for column, each in zip(columns, valid, strict=True):
            self._refuse(column, given & ~each, f"all of {', '.join(c.name for c in columns)}, or none of them")
        return given

    def _check_not_null(self, avro: Avro, path: tuple[str, ...], present: Array | None) -> None:
        if avro["type"] != "record":
            column = self._by_path[path]
            missing = ~_valid(self._values[column.name])
            self._refuse(column, missing if present is None else missing & present, "a value, not null")

    def _value(self, avro: Avro, column: Column, present: Array | None) -> list[pa.Array]:
        values = self._values[column.name]
        match avro["type"]:
            case "string":
                return _texts(values, present)
            case "array":
                self._refuse(column, _has_null_item(values), "no null in the list")
                return _lists(values, present)
            case "boolean":
                return [_bytes(_numbers(values).astype(np.uint8), present)]
            case "double":
                doubles = _numbers(values)
                self._refuse(column, ~np.isfinite(doubles), "a finite number")
                return [_doubles(doubles, present)]
            case "enum":
                indices = pc.index_in(values, pa.array(avro["symbols"], pa.string()))
                unknown = _valid(values) & ~_valid(indices)
                self._refuse(column, unknown, f"one of {', '.join(avro['symbols'])}")
                return [_longs(_numbers(indices), present)]
        numbers = _numbers(values)
        if pa.types.is_timestamp(column.arrow):
            self._refuse(column, (numbers < FIRST_MS) | (numbers >= END_MS), "an instant of the years 1 to 9999")
        return [_longs(numbers, present)]

    def _refuse(self, column: Column, where: Array, expected: str) -> None:
        if where.any():
            row = int(np.argmax(where))
            received = self._values[column.name][row]
            # Python's calendar ends where the refusal of an instant begins.
            shown = received.value if pa.types.is_timestamp(received.type) else received.as_py()
            raise EncodeError(
                f"{self._schema.name}, row {self._start + row}: {column.name} must be {expected}; received {shown!r}"
            )


def _valid(values: pa.Array) -> Array:
    return np.asarray(values.is_valid())


def _numbers(values: pa.Array) -> Array:
    """Values as NumPy, instants in milliseconds, 0 for null."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    filled: Array = values.fill_null(False if pa.types.is_boolean(values.type) else 0).to_numpy(zero_copy_only=False)
    return filled


def _binary(sizes: Array, data: Array) -> pa.Array:
    """Bytes of `sizes` lengths each, one after the other in `data`."""
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.Array.from_buffers(pa.binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _bytes(values: Array, present: Array | None) -> pa.Array:
    """One byte in each present row."""
    data = values.astype(np.uint8)
    if present is None:
        return _binary(np.ones(len(data), np.int32), data)
    return _binary(present.astype(np.int32), data[present])


def _doubles(values: Array, present: Array | None) -> pa.Array:
    """Eight bytes in each present row, little-endian."""
    data = values.astype("<f8")
    if present is None:
        return _binary(np.full(len(data), 8, np.int32), data)
    return _binary(8 * present.astype(np.int32), data[present])


def _longs(values: Array, present: Array | None) -> pa.Array:
    """Zigzag varints in the present rows: 7 bits a byte, the low ones first, the high bit set on all but the last."""
    signed = values.astype(np.int64)
    rest = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    if rest.max(initial=0) < 0x80:
        return _bytes(rest, present)
    size_limit = -(-int(rest.max()).bit_length() // 7)
    septets = np.empty((len(rest), size_limit), np.uint8)
    sizes = np.ones(len(rest), np.int32)
    for index in range(size_limit):
        septets[:, index] = rest & np.uint64(0x7F)
        rest = rest >> np.uint64(7)
        septets[:, index] |= (rest != 0).astype(np.uint8) << 7
        sizes += rest != 0
    if present is not None:
        sizes = np.where(present, sizes, 0)
    return _binary(sizes, septets[np.arange(size_limit) < sizes[:, None]])


def _texts(values: pa.Array, present: Array | None) -> list[pa.Array]:
    """A length in bytes and the bytes; values outside `present` are null and join as nothing."""
    return [_longs(_numbers(pc.binary_length(values)), present), values.cast(pa.binary())]


def _lists(values: pa.Array, present: Array | None) -> list[pa.Array]:
    """One block with a count and the items, none if the list is empty, and the byte 0 that ends it."""
    counts = _numbers(values.value_lengths())
    items = pc.binary_join_element_wise(*_texts(values.flatten(), None), pa.scalar(b"", pa.binary()))
    sizes = _numbers(pc.binary_length(items))
    ends = np.concatenate([[0], np.cumsum(sizes)])[np.concatenate([[0], np.cumsum(counts)])].astype(np.int32)
    blocks = pa.Array.from_buffers(pa.binary(), len(counts), [None, pa.py_buffer(ends), items.buffers()[2]])
    return [_longs(counts, counts > 0), blocks, _bytes(np.zeros(len(counts)), present)]


def _has_null_item(values: pa.Array) -> Array:
    parents = _numbers(pc.list_parent_indices(values))
    nulls = parents[~_valid(values.flatten())]
    return np.isin(np.arange(len(values)), nulls)
