"""Reading the same Avro field of many messages at once, and telling the malformed ones.

An Avro body has no index: a field begins where the one before it ended. But the bodies of one writer schema have the
same fields in the same order, so a position per message and one NumPy operation per field and *column* replace a
Python step per field and *message*. Each message is confined to its own bytes: a malformed one is marked and parked
at its end, and cannot shift its neighbours or claim memory (Avro 1.12, "Binary Encoding").
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = slice | Array
"""Which messages a step is about: all of them (`ALL`, which costs no copy) or an array of their indices."""

ALL: Rows = slice(None)
# Years 1 to 9999: instants outside [FIRST_MS, END_MS) are in no calendar. A device's wrong clock is told by others.
FIRST_MS, END_MS = -62_135_596_800_000, 253_402_300_800_000

_PADDING = bytes(32)  # what is read ahead of the last message's end
_LOW_7_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_STOP_BITS = np.uint64(0x8080808080808080)
_SQUEEZE = (  # joins the 7-bit groups of 8 bytes: pairs, then fours, then all
    (np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00), np.uint64(1)),
    (np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000), np.uint64(2)),
    (np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000), np.uint64(4)),
)

# The low bytes of a word that belong to a text of 0..12 bytes, or of more (13): its first four, then the rest.
_HEAD_MASKS = np.array([(1 << (8 * min(size, 4))) - 1 for size in range(14)], np.uint64)
_TAIL_MASKS = np.array([(1 << (8 * max(size - 4, 0))) - 1 if size < 13 else 0 for size in range(14)], np.uint64)


class BadReason(StrEnum):
    """Why a message is no event; stored beside its raw bytes."""

    EMPTY_BODY = "empty_body"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    MALFORMED_NUMBER = "malformed_number"
    INT_OUT_OF_RANGE = "int_out_of_range"
    MALFORMED_BOOLEAN = "malformed_boolean"
    LENGTH_OUT_OF_RANGE = "length_out_of_range"
    LIST_TOO_LONG = "list_too_long"
    INVALID_UTF8 = "invalid_utf8"
    UNION_INDEX_OUT_OF_RANGE = "union_index_out_of_range"
    ENUM_INDEX_OUT_OF_RANGE = "enum_index_out_of_range"
    UNKNOWN_ENUM_SYMBOL = "unknown_enum_symbol"
    MISSING_REQUIRED_VALUE = "missing_required_value"
    VALUE_OF_ANOTHER_TYPE = "value_of_another_type"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    NOT_A_NUMBER = "not_a_number"
    NOT_WIRE_FORMAT = "not_wire_format"


_REASONS = tuple(BadReason)
_GOOD = len(_REASONS)


class Cursor:
    """A read position in each of `bodies`, whose lengths are `sizes` (int64).

    `constants` are bytes put where texts can point to them too (defaults of fields the writer does not have); they
    begin at `constants_start`. After a failed read the message's values are meaningless but harmless. The first
    `header_bytes` of every body, which it must have, are not read.
    """

    def __init__(self, bodies: Sequence[bytes], sizes: Array, constants: bytes = b"", header_bytes: int = 0) -> None:
        self.buffer = b"".join([*bodies, constants, _PADDING])
        self._bytes = np.frombuffer(self.buffer, np.uint8)
        self._words = np.ndarray((len(self.buffer) - 7,), "<u8", self.buffer, strides=(1,))
        self._end = np.cumsum(sizes)
        self._position = self._end - sizes + header_bytes
        self._reason = np.full(len(bodies), _GOOD, np.uint8)
        self.constants_start = len(self.buffer) - len(_PADDING) - len(constants)
        self.fail(ALL, sizes == header_bytes, BadReason.EMPTY_BODY)

    def __len__(self) -> int:
        return len(self._end)

    @property
    def good(self) -> Array:
        """Boolean per message: nothing wrong so far."""
        good: Array = self._reason == _GOOD
        return good

    def bad(self) -> list[tuple[int, BadReason]]:
        """Index and first reason of each bad message, in order."""
        indices = np.flatnonzero(self._reason != _GOOD)
        return [(int(index), _REASONS[self._reason[index]]) for index in indices]

    def fail(self, rows: Rows, failed: Array, reason: BadReason) -> None:
        """Mark those of `rows` where the boolean `failed` holds; the first reason of a message stays."""
        if not failed.any():
            return
        indices = self.indices(rows)[failed]
        self._position[indices] = self._end[indices]
        fresh = indices[self._reason[indices] == _GOOD]
        self._reason[fresh] = _REASONS.index(reason)

    def indices(self, rows: Rows) -> Array:
        """`rows` as an array of indices."""
        return np.arange(len(self)) if isinstance(rows, slice) else rows

    def finish(self) -> None:
        """Mark the messages that have bytes left after their last field."""
        self.fail(ALL, self._position < self._end, BadReason.TRAILING_BYTES)

    def skip(self, rows: Rows, size: int | Array) -> Array:
        """Go past `size` bytes; returns where they began."""
        begin = self._position[rows].copy()
        past = begin + size
        self._position[rows] = past
        self.fail(rows, past > self._end[rows], BadReason.TRUNCATED)
        return begin

    def long(self, rows: Rows) -> Array:
        """Read a zigzag varint of up to 64 bits: int64[rows]."""
        raw = self._varint(rows)
        return ((raw >> np.uint64(1)) ^ (~(raw & np.uint64(1)) + np.uint64(1))).view(np.int64)

    def boolean(self, rows: Rows) -> Array:
        """Read a byte 0 or 1: bool[rows]."""
        value: Array = self._bytes[self.skip(rows, 1)]
        self.fail(rows, value > 1, BadReason.MALFORMED_BOOLEAN)
        return value.astype(bool)

    def double(self, rows: Rows) -> Array:
        """Read 8 bytes: float64[rows]."""
        return self._words[self.skip(rows, 8)].view(np.float64)

    def float(self, rows: Rows) -> Array:
        """Read 4 bytes, widened: float64[rows]."""
        return self._words[self.skip(rows, 4)].astype(np.uint32).view(np.float32).astype(np.float64)

    def index(self, rows: Rows, count: int, reason: BadReason) -> Array:
        """Read a branch or symbol index in 0..count-1: int64[rows], -1 where it is out of range."""
        value = self.long(rows)
        outside = (value < 0) | (value >= count)
        self.fail(rows, outside, reason)
        value[outside] = -1
        return value

    def text(self, rows: Rows) -> tuple[Array, Array]:
        """Read a length and go past as many bytes: where they begin in `buffer`, and the lengths."""
        length = self.long(rows)
        outside = (length < 0) | (length > self._end[rows] - self._position[rows])
        self.fail(rows, outside, BadReason.LENGTH_OUT_OF_RANGE)
        length[outside] = 0
        return self.skip(rows, length), length

    def block_count(self, rows: Rows) -> Array:
        """Read the head of a block of a list or map: the number of its items, 0 at the list's end (int64[rows]).

        A negative count is followed by the block's size in bytes, which is of use only to those who skip it. More
        items than bytes are left are refused: an item takes at least a byte.
        """
        count = self.long(rows)
        negative = np.flatnonzero(count < 0)
        if len(negative):
            self.long(self.indices(rows)[negative])
        outside = (count == np.iinfo(np.int64).min) | (np.abs(count) > self._end[rows] - self._position[rows])
        self.fail(rows, outside, BadReason.LENGTH_OUT_OF_RANGE)
        return np.where(outside, 0, np.abs(count))

    def text_views(self, starts: Array, lengths: Array) -> Array:
        """Arrow's 16-byte view of each text, uint64[n, 2] (Arrow columnar format, "Variable-size Binary View").

        Up to 12 bytes are held in the view itself; longer texts as prefix, number of the buffer (0) and offset.
        """
        inline = np.minimum(lengths, 13)
        head = (self._words[starts] & _HEAD_MASKS[inline]) << np.uint64(32)
        tail = starts.astype(np.uint64) << np.uint64(32)
        short = np.flatnonzero(lengths <= 12)
        if len(short):
            tail[short] = self._words[starts[short] + 4] & _TAIL_MASKS[inline[short]]
        return np.stack([lengths.astype(np.uint64) | head, tail], axis=1)

    def _varint(self, rows: Rows) -> Array:
        position = self._position[rows]
        first = self._bytes.take(position)
        if first.max(initial=0) < 0x80:
            self.skip(rows, 1)
            return first.astype(np.uint64)
        words = self._words[position]
        stops = ~words & _STOP_BITS
        below_stop = (stops & (~stops + np.uint64(1))) - np.uint64(1)  # the bits under the lowest stop bit
        value: Array = words & below_stop & _LOW_7_BITS
        for low, high, shift in _SQUEEZE:
            value = (value & low) | ((value & high) >> shift)
        size = (np.bitwise_count(below_stop).astype(np.int64) + 1) >> 3
        (long,) = np.nonzero(stops == 0)
        if len(long):
            ninth, tenth = (self._bytes[position[long] + 8], self._bytes[position[long] + 9])
            tenth = np.where(ninth < 0x80, 0, tenth)
            high_bits = (ninth & np.uint8(0x7F)).astype(np.uint64) << np.uint64(56)
            value[long] |= high_bits | (tenth.astype(np.uint64) << np.uint64(63))
            size[long] = np.where(ninth < 0x80, 9, 10)
            self.fail(self.indices(rows)[long], tenth > 1, BadReason.MALFORMED_NUMBER)
        self.skip(rows, size)
        return value
