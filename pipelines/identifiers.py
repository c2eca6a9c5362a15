"""Identifiers in bulk: UUID version 7 (RFC 9562, section 5.7) and short hexadecimal ids, as Arrow strings."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_UUID_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def splitmix64(values: U64, seed: int) -> U64:
    """Scatter whole numbers over 64 bits; one to one for a given seed, so distinct values stay distinct.

    The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    step = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    mixed = values + step
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def event_ids(time_ms: NDArray[np.int64], high: U64, low: U64) -> pa.Array:
    """Give `"evt_" + UUID v7` for each row: its time, then 12 random bits of `high` and 62 of `low`."""
    first = (time_ms.astype(np.uint64) << np.uint64(16)) | np.uint64(0x7000) | (high & np.uint64(0xFFF))
    second = np.uint64(1 << 63) | (low & np.uint64((1 << 62) - 1))
    digits = _hexadecimal(np.stack((first, second), axis=1))
    text = np.full((len(digits), 4 + 36), ord("-"), dtype=np.uint8)
    text[:, :4] = np.frombuffer(b"evt_", dtype=np.uint8)
    for group, (start, end) in enumerate(_UUID_GROUPS):
        text[:, 4 + start + group : 4 + end + group] = digits[:, start:end]
    return _strings(text)


def hex_ids(prefix: str, numbers: U64) -> pa.Array:
    """Give `prefix` followed by the 16 hexadecimal digits of each number."""
    digits = _hexadecimal(numbers.reshape(-1, 1))
    head = np.broadcast_to(np.frombuffer(prefix.encode(), dtype=np.uint8), (len(digits), len(prefix)))
    return _strings(np.concatenate((head, digits), axis=1))


def _hexadecimal(words: U64) -> NDArray[np.uint8]:
    """(rows, words) of 64 bits -> (rows, 16 x words) ASCII digits, the most significant first."""
    octets = words.astype(">u8").view(np.uint8)
    digits = np.empty((len(words), 2 * octets.shape[1]), dtype=np.uint8)
    digits[:, 0::2] = _HEX_DIGITS[octets >> 4]
    digits[:, 1::2] = _HEX_DIGITS[octets & 15]
    return digits


def _strings(text: NDArray[np.uint8]) -> pa.Array:
    """(rows, width) ASCII -> a string array, without one Python object."""
    rows, width = text.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
