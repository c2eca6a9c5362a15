"""Event ids in bulk: which of them may be the same, and in which files an id may be.

Ids are compared by 64 bits of them, which misses no two that are equal; those that share their bits with another are
then compared as they are. Ids are UUIDs of version 7, which begin with their time: a resent event is looked for only
in files whose ids have its first characters between their least and their greatest. Ids of any other form are looked
for in more files, which is slower and no less right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Prefixes = NDArray[np.bytes_]

# "evt_" and eight digits of a UUID's time: 65 seconds. Iceberg keeps 16 characters of a file's least and greatest id.
PREFIX_BYTES = 12
_WORD_BYTES = 8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


@dataclass(frozen=True)
class IdRange:
    """The least and greatest id of a file as Iceberg keeps them, or None where it does not know them."""

    first: bytes | None
    last: bytes | None


@dataclass(frozen=True)
class Ids:
    """What the event ids of some rows come down to."""

    hashes: Hashes  # in the order of the rows
    prefixes: Prefixes  # distinct, ascending

    @classmethod
    def of(cls, event_ids: pa.ChunkedArray) -> "Ids":
        """From a column of ids, without nulls."""
        if not len(event_ids):
            return merged([])
        column = event_ids.cast(pa.binary()).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        hashes = np.zeros(len(column), np.uint64)
        prefixes = [np.empty(0, f"S{PREFIX_BYTES}")]
        offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
        widths = np.diff(offsets)
        for width in np.unique(widths).tolist():
            is_width = widths == width
            same = column if is_width.all() else column.filter(pa.array(is_width))
            hashes[is_width], firsts = _of_width(same, width)
            prefixes.append(firsts)
        return cls(hashes, np.unique(np.concatenate(prefixes)))


def merged(parts: Sequence[Ids]) -> Ids:
    """The ids of all parts, in their order."""
    if not parts:
        return Ids(np.empty(0, np.uint64), np.empty(0, f"S{PREFIX_BYTES}"))
    hashes = np.concatenate([part.hashes for part in parts])
    return Ids(hashes, np.unique(np.concatenate([part.prefixes for part in parts])))


def may_hold(ranges: Sequence[IdRange], prefixes: Prefixes) -> NDArray[np.bool_]:
    """Which files may hold an id with one of the prefixes, shape (files,)."""
    kind = f"S{PREFIX_BYTES}"
    firsts = np.array([(one.first or b"")[:PREFIX_BYTES] for one in ranges], kind)
    lasts = np.array([b"\xff" if one.last is None else one.last[:PREFIX_BYTES] for one in ranges], kind)
    inside: NDArray[np.bool_] = np.searchsorted(prefixes, firsts) < np.searchsorted(prefixes, lasts, side="right")
    return inside


def repeated(hashes: Hashes) -> Hashes:
    """The hashes that occur more than once, ascending."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def among(hashes: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    """Which of `hashes` are among those of a sorted array, shape (n,)."""
    if not len(ascending):
        return np.zeros(len(hashes), dtype=bool)
    places = np.searchsorted(ascending, hashes)
    places[places == len(ascending)] = 0
    found: NDArray[np.bool_] = ascending[places] == hashes
    return found


def _of_width(column: pa.BinaryArray, width: int) -> tuple[Hashes, Prefixes]:
    """Hashes and distinct prefixes of ids that are all `width` bytes long."""
    count = len(column)
    padded = -(-max(width, PREFIX_BYTES) // _WORD_BYTES) * _WORD_BYTES
    octets = np.zeros((count, padded), np.uint8)
    if width:
        start = column.offset
        first = int(np.frombuffer(column.buffers()[1], np.int32)[start])
        octets[:, :width] = np.frombuffer(column.buffers()[2], np.uint8, count * width, first).reshape(count, width)
    words = octets.view(np.uint64)
    hashes = np.full(count, width, np.uint64)
    for word in range(words.shape[1]):
        hashes = (hashes ^ words[:, word]) * _FACTOR
        hashes ^= hashes >> _SHIFT
    starts = octets[:, :PREFIX_BYTES]
    is_new = np.ones(count, dtype=bool)
    is_new[1:] = (starts[1:] != starts[:-1]).any(axis=1)  # rows come about in the order of their ids
    return hashes, np.unique(np.ascontiguousarray(starts[is_new]).view(f"S{PREFIX_BYTES}").ravel())
