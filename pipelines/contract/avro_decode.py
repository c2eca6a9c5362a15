"""Avro bodies of one writer schema into the flat Arrow table that the contract promises, in bulk.

input:  the writer's schema, the bodies, the event as the reader knows it
does:   matches the two schemas once (Avro 1.12, "Schema Resolution"), then reads field by field, all bodies at once
output: the good messages as Arrow columns, the bad ones as (index, reason)

About 10 times a per-message decoder on one core; `python -m tests.benchmarks.decode` measures it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from pipelines.contract.avro_columns import ColumnBuffer, TextLists, columns_of, new_buffer
from pipelines.contract.avro_cursor import ALL, END_MS, FIRST_MS, Array, BadReason, Cursor, Rows
from pipelines.contract.avro_schema import Avro, expand, name_of
from pipelines.contract.events import EventSchema
from pipelines.errors import IncompatibleSchema

CHUNK_ROWS = 16_384  # the working arrays of a chunk fit in a core's cache
CHUNK_BYTES = 64 << 20
MAX_LIST_ITEMS = 4_096  # no property of an event is longer; bounds the work one message can cause

Columns: TypeAlias = Mapping[str, ColumnBuffer]
Step: TypeAlias = Callable[[Cursor, Columns, Rows], None]

_SCALARS: dict[str, Callable[[Cursor, Rows], Array]] = {
    "int": Cursor.long,
    "long": Cursor.long,
    "float": Cursor.float,
    "double": Cursor.double,
    "boolean": Cursor.boolean,
}
_PROMOTIONS = {"int": ("int", "long", "double"), "long": ("long", "double"), "float": ("double",)}
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Decoded:
    """The outcome of `decode`.

    `table` has the reader's flat schema and one row per good message; `ordinals` (int64[rows], ascending) tells which
    of the bodies each row was; `bad` has the index and the reason of each other one, ascending.
    """

    table: pa.Table
    ordinals: Array
    bad: list[tuple[int, BadReason]]


def decode(writer_schema: Avro, bodies: Sequence[bytes], reader: EventSchema, header_bytes: int = 0) -> Decoded:
    """Decode `bodies`, written with `writer_schema` (parsed JSON), as the event `reader`.

    The first `header_bytes` of every body are passed over: every body must have as many.
    Fields the reader does not know are skipped; those the writer does not know get their default; int is promoted to
    long. A body is bad if it is not exactly one record, or holds an instant outside the years 1 to 9999, a NaN or
    infinity, or a list of more than `MAX_LIST_ITEMS`. No body can make this use more memory than a small multiple of
    its size.
    Raises `IncompatibleSchema` if the writer's schema as a whole cannot be read as the reader's.
    """
    try:
        plan = _plan(json.dumps(writer_schema, sort_keys=True), reader)
    except RecursionError:
        raise IncompatibleSchema(f"the writer's schema of {reader.fullname} is nested too deeply; flatten it") from None
    tables, ordinals, bad = [], [], []
    sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
    for start, stop in _chunks(sizes):
        cursor = Cursor(bodies[start:stop], sizes[start:stop], plan.constants, header_bytes)
        table = plan.read(cursor)
        if not cursor.good.all():
            table = table.filter(pa.array(cursor.good))
        tables.append(table)
        ordinals.append(np.flatnonzero(cursor.good) + start)
        bad += [(start + index, reason) for index, reason in cursor.bad()]
    if not tables:
        return Decoded(reader.arrow.empty_table(), np.empty(0, np.int64), [])
    return Decoded(pa.concat_tables(tables), np.concatenate(ordinals), bad)


def _chunks(sizes: Array) -> Iterator[tuple[int, int]]:
    """Ranges of at most `CHUNK_ROWS` bodies and, unless a single one is larger, `CHUNK_BYTES`."""
    ends = np.cumsum(sizes)
    start, done = 0, 0
    while start < len(sizes):
        fitting = int(np.searchsorted(ends, done + CHUNK_BYTES, side="right"))
        stop = min(start + CHUNK_ROWS, max(start + 1, fitting))
        yield start, stop
        start, done = stop, int(ends[stop - 1])


@lru_cache(maxsize=256)
def _plan(writer_json: str, reader: EventSchema) -> "_Plan":
    return _Plan(json.loads(writer_json), reader)


class _Plan:
    """What to do with each field of the writer, decided once per pair of schemas."""

    def __init__(self, writer_schema: Avro, reader: EventSchema) -> None:
        self._event = reader
        self._columns = {column.path: column for column in reader.columns}
        self.constants = b""
        writer = expand(writer_schema)
        if writer["type"] != "record" or name_of(writer) != reader.fullname:
            raise IncompatibleSchema(
                f"the writer's schema is {name_of(writer)}, expected {reader.fullname}; decode it as the event it names"
            )
        self._step = self._match(writer, expand(reader.avro), ())

    def read(self, cursor: Cursor) -> pa.Table:
        """Read all messages of `cursor`; rows of bad ones are filler."""
        buffers = {column.name: new_buffer(column, len(cursor)) for column in self._event.columns}
        self._step(cursor, buffers, ALL)
        cursor.finish()
        arrays = columns_of(cursor, list(buffers.values()))
        # Bad rows leave holes in required columns; the caller takes them out, so the schema is set, not checked.
        return pa.Table.from_arrays(arrays, schema=self._event.arrow)

    def _match(self, writer: Avro, reader: Avro, path: tuple[str, ...]) -> Step:
        """The step that reads `writer` into the columns of `reader` (at `path`); raises `IncompatibleSchema`."""
        if writer["type"] == "union":
            return _union([self._branch(branch, reader, path) for branch in writer["branches"]])
        if reader["type"] == "union":
            if writer["type"] == "null":
                return _nothing
            reader = reader["branches"][1]  # the contract allows no union but [null, type]
        if reader["type"] == "record" and writer["type"] == "record":
            return self._record(writer, reader, path)
        column = self._columns.get(path)
        if column is None or not _readable(writer, reader):
            raise self._incompatible(path, f"the writer has {name_of(writer)}, expected {name_of(reader)}")
        match writer["type"]:
            case "string":
                return _text(column.name)
            case "enum":
                return _enum(column.name, writer["symbols"], reader)
            case "array":
                return _list(column.name)
        return _scalar(column.name, writer["type"], reader)

    def _branch(self, writer: Avro, reader: Avro, path: tuple[str, ...]) -> Step:
        """Like `_match`, but what cannot be read makes only those messages bad that hold it."""
        if writer["type"] == "null" and reader["type"] != "union":
            return _refuse(BadReason.MISSING_REQUIRED_VALUE)
        try:
            return self._match(writer, reader, path)
        except IncompatibleSchema:
            return _refuse(BadReason.VALUE_OF_ANOTHER_TYPE)

    def _record(self, writer: Avro, reader: Avro, path: tuple[str, ...]) -> Step:
        known = {field["name"]: field for field in reader["fields"]}
        steps = []
        for field in writer["fields"]:
            wanted = known.pop(field["name"], None)
            if wanted is None:
                steps.append(_skip(field["type"]))
            else:
                steps.append(self._match(field["type"], wanted["type"], (*path, field["name"])))
        for name, field in known.items():
            if "default" not in field:
                raise self._incompatible((*path, name), "the writer lacks this field, and it has no default")
            steps.append(self._default(field["type"], field["default"], (*path, name)))
        return _sequence(steps)

    def _default(self, reader: Avro, value: Any, path: tuple[str, ...]) -> Step:
        if reader["type"] == "union":
            return _nothing  # the contract allows no default but null
        if reader["type"] == "record":
            fields = [(field, value.get(field["name"], field.get("default"))) for field in reader["fields"]]
            return _sequence([self._default(field["type"], each, (*path, field["name"])) for field, each in fields])
        name = self._columns[path].name
        if reader["type"] == "enum":
            symbol = reader["symbols"].index(value)
            return lambda cursor, columns, rows: columns[name].put(rows, symbol)
        if reader["type"] == "array":
            if value:
                raise self._incompatible(path, f"a list's default must be [], received {value!r}")
            return lambda cursor, columns, rows: columns[name].put(rows, 0)
        if reader["type"] == "string":
            offset, length = len(self.constants), len(value.encode())
            self.constants += value.encode()
            return lambda cursor, columns, rows: columns[name].put(rows, cursor.constants_start + offset, length)
        return lambda cursor, columns, rows: columns[name].put(rows, value)

    def _incompatible(self, path: tuple[str, ...], what: str) -> IncompatibleSchema:
        return IncompatibleSchema(
            f"{self._event.fullname}, field {'.'.join(path)}: {what}; a breaking change needs a new topic"
        )


# ------------------------------------------------------------------------------------------------- steps


def _nothing(cursor: Cursor, columns: Columns, rows: Rows) -> None:
    """Read no byte; the columns stay null."""


def _refuse(reason: BadReason) -> Step:
    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        cursor.fail(rows, np.ones(len(cursor.indices(rows)), bool), reason)

    return step


def _sequence(steps: Sequence[Step]) -> Step:
    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        for each in steps:
            each(cursor, columns, rows)

    return step


def _union(branches: Sequence[Step]) -> Step:
    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        chosen = cursor.index(rows, len(branches), BadReason.UNION_INDEX_OUT_OF_RANGE)
        for index, branch in enumerate(branches):
            is_chosen = chosen == index
            if is_chosen.all():
                branch(cursor, columns, rows)
            elif is_chosen.any():
                branch(cursor, columns, cursor.indices(rows)[is_chosen])

    return step


def _scalar(name: str, kind: str, reader: Avro) -> Step:
    read = _SCALARS[kind]
    is_timestamp = reader.get("logicalType") == "timestamp-millis"

    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        values = read(cursor, rows)
        if kind == "int":
            outside = (values < _INT32.min) | (values > _INT32.max)
            cursor.fail(rows, outside, BadReason.INT_OUT_OF_RANGE)
            values[outside] = 0
        elif is_timestamp:
            outside = (values < FIRST_MS) | (values >= END_MS)
            cursor.fail(rows, outside, BadReason.TIMESTAMP_OUT_OF_RANGE)
        elif values.dtype == np.float64:
            cursor.fail(rows, ~np.isfinite(values), BadReason.NOT_A_NUMBER)
        columns[name].put(rows, values)

    return step


def _text(name: str) -> Step:
    return lambda cursor, columns, rows: columns[name].put(rows, *cursor.text(rows))


def _enum(name: str, symbols: Sequence[str], reader: Avro) -> Step:
    """Writer's index to reader's index: by symbol, else the reader's default, else the message is bad."""
    known = {symbol: index for index, symbol in enumerate(reader["symbols"])}
    fallback = known.get(reader["default"], -1)
    # The last element is for messages already found bad, whose index is -1.
    to_reader = np.array([*(known.get(symbol, fallback) for symbol in symbols), -1])

    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        values = to_reader[cursor.index(rows, len(symbols), BadReason.ENUM_INDEX_OUT_OF_RANGE)]
        unknown = values < 0
        cursor.fail(rows, unknown, BadReason.UNKNOWN_ENUM_SYMBOL)
        columns[name].put(rows, np.where(unknown, 0, values))

    return step


def _list(name: str) -> Step:
    def add_item(cursor: Cursor, columns: Columns, rows: Array) -> None:
        buffer = columns[name]
        assert isinstance(buffer, TextLists)
        buffer.append(rows, *cursor.text(rows))

    def step(cursor: Cursor, columns: Columns, rows: Rows) -> None:
        columns[name].put(rows, 0)
        _each_item(cursor, rows, lambda some: add_item(cursor, columns, some))

    return step


def _each_item(cursor: Cursor, rows: Rows, read_item: Callable[[Array], object]) -> None:
    """Read a list or map: `read_item` is called for the messages that have a first item, then a second, ..."""
    open_rows = cursor.indices(rows)
    left = np.zeros(len(open_rows), np.int64)  # items to come in the current block
    for _ in range(MAX_LIST_ITEMS + 1):
        at_head = left == 0
        if at_head.any():
            left[at_head] = cursor.block_count(open_rows[at_head])
            open_rows, left = open_rows[left > 0], left[left > 0]
        if not len(open_rows):
            return
        read_item(open_rows)
        left -= 1
    cursor.fail(open_rows, np.ones(len(open_rows), bool), BadReason.LIST_TOO_LONG)


def _skip(writer: Avro) -> Step:
    """Go past a field that the reader does not know."""
    match writer["type"]:
        case "null":
            return _nothing
        case "record":
            return _sequence([_skip(field["type"]) for field in writer["fields"]])
        case "union":
            return _union([_skip(branch) for branch in writer["branches"]])
        case "string" | "bytes":
            return lambda cursor, columns, rows: _discard(cursor.text(rows))
        case "fixed":
            return lambda cursor, columns, rows: _discard(cursor.skip(rows, writer["size"]))
        case "enum":
            count, reason = len(writer["symbols"]), BadReason.ENUM_INDEX_OUT_OF_RANGE
            return lambda cursor, columns, rows: _discard(cursor.index(rows, count, reason))
        case "array":
            return _skip_items([_skip(writer["items"])])
        case "map":
            return _skip_items([_skip({"type": "string"}), _skip(writer["values"])])
    read = _SCALARS[writer["type"]]
    return lambda cursor, columns, rows: _discard(read(cursor, rows))


def _skip_items(steps: Sequence[Step]) -> Step:
    item = _sequence(steps)
    return lambda cursor, columns, rows: _each_item(cursor, rows, lambda some: item(cursor, columns, some))


def _discard(value: object) -> None:
    """A field was read only to get past it."""


def _readable(writer: Avro, reader: Avro) -> bool:
    """Whether a value of the writer's type can be read as the reader's, a column (Avro 1.12, "Schema Resolution")."""
    kind, wanted = writer["type"], reader["type"]
    if kind == "array" and wanted == "array":
        return bool(writer["items"]["type"] == "string")
    if kind == "enum" and wanted == "enum":
        return bool(writer["fullname"].rpartition(".")[2] == reader["fullname"].rpartition(".")[2])
    same_unit = writer.get("logicalType") in (None, reader.get("logicalType"))
    return same_unit and (kind == wanted or wanted in _PROMOTIONS.get(kind, ()))
