"""Buffers that hold one decoded column of many messages until it becomes an Arrow array."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from pipelines.contract.avro_cursor import Array, BadReason, Cursor, Rows
from pipelines.contract.events import Column

_NUMPY_TYPES = {pa.int32(): np.int32, pa.float64(): np.float64, pa.bool_(): np.bool_}  # else int64


class ColumnBuffer(ABC):
    """One column of `rows` messages; null wherever nothing was put."""

    def __init__(self, column: Column, rows: int) -> None:
        self._column = column
        self._valid = np.zeros(rows, bool)

    @property
    def is_null(self) -> bool:
        """Nothing was put."""
        return not self._valid.any()

    def nulls(self) -> pa.Array:
        """The column of a buffer in which nothing was put."""
        return pa.nulls(len(self._valid), self._column.arrow)

    @abstractmethod
    def put(self, rows: Rows, values: Array | float, lengths: Array | int = 0) -> None:
        """Store values for `rows`: numbers, enum indices, item counts, or where texts begin (with `lengths`)."""


class _Numbers(ColumnBuffer):
    def __init__(self, column: Column, rows: int) -> None:
        super().__init__(column, rows)
        self._values: Array = np.zeros(rows, _NUMPY_TYPES.get(column.arrow, np.int64))

    def put(self, rows: Rows, values: Array | float, lengths: Array | int = 0) -> None:
        self._values[rows] = values
        self._valid[rows] = True

    def to_arrow(self, cursor: Cursor) -> pa.Array:
        values = pa.array(self._values, mask=~self._valid)
        return values if values.type == self._column.arrow else values.cast(self._column.arrow)


class _Symbols(ColumnBuffer):
    def __init__(self, column: Column, rows: int) -> None:
        super().__init__(column, rows)
        self._indices = np.zeros(rows, np.int32)

    def put(self, rows: Rows, values: Array | float, lengths: Array | int = 0) -> None:
        self._indices[rows] = values
        self._valid[rows] = True

    def to_arrow(self, cursor: Cursor) -> pa.Array:
        indices = pa.array(self._indices, mask=~self._valid)
        return pa.array(self._column.symbols, pa.string()).take(indices)


class _Texts(ColumnBuffer):
    def __init__(self, column: Column, rows: int) -> None:
        super().__init__(column, rows)
        self._starts = np.zeros(rows, np.int64)
        self._lengths = np.zeros(rows, np.int64)

    @property
    def parts(self) -> tuple[Array, Array, Array]:
        """Where each text begins, its length, and whether it is there."""
        return self._starts, self._lengths, self._valid

    def put(self, rows: Rows, values: Array | float, lengths: Array | int = 0) -> None:
        self._starts[rows] = values
        self._lengths[rows] = lengths
        self._valid[rows] = True


class TextLists(ColumnBuffer):
    """Lists of texts: `put` makes them lists, empty at first; `append` adds an item to some."""

    def __init__(self, column: Column, rows: int) -> None:
        super().__init__(column, rows)
        self._items: list[tuple[Array, Array, Array]] = []

    def put(self, rows: Rows, values: Array | float, lengths: Array | int = 0) -> None:
        """Make the lists of `rows` empty rather than null."""
        self._valid[rows] = True

    def append(self, rows: Array, starts: Array, lengths: Array) -> None:
        """Add one more item to the list of each of `rows`."""
        self._items.append((rows, starts, lengths))

    def to_arrow(self, cursor: Cursor) -> pa.Array:
        """The column; marks messages with an item that is not UTF-8 as bad."""
        nothing = np.empty(0, np.int64)
        rows, starts, lengths = map(np.concatenate, zip((nothing,) * 3, *self._items, strict=True))
        order = np.argsort(rows, kind="stable")  # items of one message stay in the order of reading
        valid = np.ones(len(rows), bool)
        items = _strings(cursor, starts[order], lengths[order], valid, rows[order])
        counts = np.bincount(rows, minlength=len(self._valid))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), items, mask=pa.array(~self._valid))


Buffer: TypeAlias = _Numbers | _Symbols | _Texts | TextLists


def new_buffer(column: Column, rows: int) -> Buffer:
    """The buffer for `column`'s type."""
    if column.symbols:
        return _Symbols(column, rows)
    if pa.types.is_string(column.arrow):
        return _Texts(column, rows)
    return TextLists(column, rows) if pa.types.is_list(column.arrow) else _Numbers(column, rows)


def columns_of(cursor: Cursor, buffers: Sequence[Buffer]) -> list[pa.Array]:
    """All columns of some messages, in their order; marks messages whose text is not UTF-8 as bad.

    Texts are made of all columns at once, for of a few messages making arrays is most of the work.
    """
    texts = [buffer for buffer in buffers if isinstance(buffer, _Texts) and not buffer.is_null]
    made = iter(_texts(cursor, texts))
    columns = []
    for buffer in buffers:
        if buffer.is_null:
            columns.append(buffer.nulls())
        else:
            columns.append(next(made) if isinstance(buffer, _Texts) else buffer.to_arrow(cursor))
    return columns


def _texts(cursor: Cursor, buffers: Sequence[_Texts]) -> list[pa.Array]:
    """The columns, as slices of one array."""
    if not buffers:
        return []
    size = len(cursor)
    starts, lengths, valid = (np.concatenate(parts) for parts in zip(*(one.parts for one in buffers), strict=True))
    whole = _strings(cursor, starts, lengths, valid, np.tile(np.arange(size), len(buffers)))
    return [whole.slice(number * size, size) for number in range(len(buffers))]


def _strings(cursor: Cursor, starts: Array, lengths: Array, valid: Array, rows: Array) -> pa.Array:
    """Texts of `cursor.buffer` as an Arrow string array; `rows` are the messages they came from."""
    views = pa.py_buffer(cursor.text_views(starts, lengths))
    bitmap = None if valid.all() else pa.array(valid).buffers()[1]
    data = pa.py_buffer(cursor.buffer)
    try:
        return pa.Array.from_buffers(pa.binary_view(), len(starts), [bitmap, views, data]).cast(pa.string())
    except pa.ArrowInvalid:
        malformed = np.array([not _is_utf8(cursor.buffer[a : a + n]) for a, n in zip(starts, lengths, strict=True)])
        assert malformed.any(), "Arrow refused texts that Python decodes"
        cursor.fail(rows, malformed, BadReason.INVALID_UTF8)
        return _strings(cursor, starts, np.where(malformed, 0, lengths), valid, rows)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
