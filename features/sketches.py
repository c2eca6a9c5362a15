"""HyperLogLog: distinct counts in at most 16 KiB that do not depend on the order of merging.

P. Flajolet et al., "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", AofA 2007,
with the 64-bit hash and sparse form of S. Heule et al., "HyperLogLog in Practice", EDBT 2013, and the improved
raw estimator of O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches",
arXiv:1702.01284 (2017), algorithm 6: no bias tables, no thresholds, good from 0 to beyond 10**15.
Relative standard error 1.04 / sqrt(2**14) = 0.81 %.

A sketch is stored *sparse* (sorted little-endian uint32, `register << 6 | rank`) while that is smaller than
*dense* (16,384 bytes, one rank each). Which of the two follows from its contents, so equal sketches are
equal bytes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat
from features.errors import PackedValueError
from features.runs import bounds, expand, run_of_row, run_starts
from features.windows import Int64s

PRECISION = 14
REGISTERS = 1 << PRECISION
_HASH_BITS = 64 - PRECISION
_RANK_BITS = 6
_RANK_MASK = (1 << _RANK_BITS) - 1
_SPARSE_BYTES = 4
# A 64-bit hash cannot tell more apart; the largest estimate that an int64 holds.
_MOST = 2.0**62
# Changing this string changes every sketch; it is the fixed seed of the hash.
_SEED = b"reel.sketch.1"


def hash64(values: pa.Array) -> npt.NDArray[np.uint64]:
    """64-bit BLAKE2b (RFC 7693) of each string, the same on every machine and in every version; [n].

    Each distinct value is hashed once; a log has many events of few viewers.
    """
    encoded = flat(values).dictionary_encode()
    digests = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8, person=_SEED).digest() for text in encoded.dictionary.to_pylist()
    )
    hashes: npt.NDArray[np.uint64] = np.frombuffer(digests, dtype="<u8")[np.asarray(encoded.indices)]
    return hashes


def cells_of(values: pa.Array) -> Int64s:
    """`register << 6 | rank` of each string: the first 14 bits, and 1 + the leading zeros of the other 50."""
    hashes = hash64(values)
    registers = (hashes >> np.uint64(_HASH_BITS)).astype(np.int64)
    rest = (hashes & np.uint64((1 << _HASH_BITS) - 1)).astype(np.float64)  # exact: under 2**53
    bit_lengths = np.frexp(rest)[1].astype(np.int64)
    return registers << _RANK_BITS | (_HASH_BITS - bit_lengths + 1)


@dataclass(frozen=True)
class Sketches:
    """`size` sketches at once: entry `e` says that sketch `rows[e]` holds `cells[e]`; sorted, one a register."""

    size: int
    rows: Int64s
    cells: Int64s

    @classmethod
    def of_entries(cls, size: int, rows: Int64s, cells: Int64s) -> "Sketches":
        """Sketches of entries in any order, several a register: the highest rank counts."""
        folded = rows << (PRECISION + _RANK_BITS)
        folded |= cells
        folded.sort()
        registers = folded >> _RANK_BITS
        highest = np.append(registers[1:] != registers[:-1], True) if len(folded) else np.empty(0, dtype=np.bool_)
        kept = folded[highest]
        return cls(size, kept >> (PRECISION + _RANK_BITS), kept & ((1 << (PRECISION + _RANK_BITS)) - 1))

    def merge(self, starts: Int64s) -> "Sketches":
        """One sketch for each run of sketches that begins at `starts`."""
        return Sketches.of_entries(len(starts), run_of_row(starts, self.size)[self.rows], self.cells)

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "Sketches"]:
        """Reader of ranges: one sketch for each `lower[i]:upper[i]` of sketches."""
        edges = bounds(self.rows, self.size)

        def read(lower: Int64s, upper: Int64s) -> Sketches:
            rows, places = expand(edges[lower], edges[upper])
            return Sketches.of_entries(len(lower), rows, self.cells[places])

        return read

    def estimates(self) -> npt.NDArray[np.float64]:
        """How many distinct values each sketch has seen; [size]. Exactly the same for the same registers."""
        ranks = self.cells & _RANK_MASK
        filled = np.bincount(self.rows, minlength=self.size)
        saturated = np.bincount(self.rows[ranks > _HASH_BITS], minlength=self.size)
        # Sum of 2**-rank in units of 2**-50: whole numbers, hence no rounding that could depend on an order.
        weights = np.where(ranks > _HASH_BITS, 0, 1 << np.maximum(_HASH_BITS - ranks, 0)).astype(np.uint64)
        harmonic = np.zeros(self.size)
        starts = run_starts(self.rows)
        if len(starts):
            harmonic[self.rows[starts]] = np.add.reduceat(weights, starts).astype(np.float64)
        indicator = (
            REGISTERS * _sigma_table()[REGISTERS - filled]
            + (harmonic + REGISTERS * _tau(1 - saturated / REGISTERS)) * 2.0**-_HASH_BITS
        )
        scale = REGISTERS**2 / (2 * np.log(2))
        estimates: npt.NDArray[np.float64] = scale / np.maximum(indicator, scale / _MOST)
        return estimates

    def counts(self) -> Int64s:
        """The estimates as whole numbers; [size]."""
        return np.rint(self.estimates()).astype(np.int64)

    def to_arrow(self) -> pa.Array:
        """`binary` array, one stored sketch a row."""
        edges = bounds(self.rows, self.size)
        entries = self.cells.astype("<u4")
        dense = np.diff(edges) * _SPARSE_BYTES >= REGISTERS
        lengths = np.where(dense, REGISTERS, np.diff(edges) * _SPARSE_BYTES)
        offsets = np.zeros(self.size + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        content = entries if not dense.any() else self._with_dense(entries, edges, offsets, dense)
        large = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), self.size, [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        )
        return large.cast(pa.binary())

    def _with_dense(
        self, entries: npt.NDArray[np.uint32], edges: Int64s, offsets: Int64s, dense: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.uint32]:
        """The content of all sketches, some of them dense; every sketch begins at a multiple of four bytes."""
        content = np.zeros(int(offsets[-1]) // _SPARSE_BYTES, dtype="<u4")
        sparse_rows, words = np.flatnonzero(~dense), offsets // _SPARSE_BYTES
        _, source = expand(edges[sparse_rows], edges[sparse_rows + 1])
        _, target = expand(words[sparse_rows], words[sparse_rows + 1])
        content[target] = entries[source]
        ranks = content.view(np.uint8)
        for row in np.flatnonzero(dense):
            cells = self.cells[edges[row] : edges[row + 1]]
            ranks[offsets[row] + (cells >> _RANK_BITS)] = cells & _RANK_MASK
        return content

    @classmethod
    def from_arrow(cls, column: pa.Array) -> "Sketches":
        """Sketches from `to_arrow`'s column; null is an empty sketch. Other bytes raise `PackedValueError`."""
        values = pc.fill_null(flat(column).cast(pa.large_binary()), b"")
        lengths = np.asarray(pc.binary_length(values), dtype=np.int64)
        is_dense = lengths == REGISTERS
        _check_lengths(lengths[~is_dense])
        sparse, places = values.filter(pa.array(~is_dense)), np.flatnonzero(~is_dense)
        cells = np.frombuffer(_content(sparse), dtype="<u4").astype(np.int64)
        rows = np.repeat(places, lengths[places] // _SPARSE_BYTES)
        dense = [np.frombuffer(values[row].as_buffer(), dtype=np.uint8) for row in np.flatnonzero(is_dense).tolist()]
        if dense:
            of, registers = np.nonzero(np.stack(dense))
            ranks = np.stack(dense)[of, registers].astype(np.int64)
            rows = np.append(rows, np.flatnonzero(is_dense)[of])
            order = np.argsort(rows, kind="stable")
            rows, cells = rows[order], np.append(cells, registers << _RANK_BITS | ranks)[order]
        _check_cells(rows, cells)
        return cls(len(values), rows, cells)


def merge_stored(values: Sequence[bytes]) -> bytes:
    """One stored sketch of several, whatever their order and form."""
    if not values:
        return b""
    merged = Sketches.from_arrow(pa.array(values, pa.binary())).merge(np.zeros(1, dtype=np.int64))
    stored: bytes = merged.to_arrow()[0].as_py()
    return stored


def _content(values: pa.LargeBinaryArray) -> pa.Buffer:
    """The bytes of all values, one after the other."""
    _, offsets, content = values.buffers()
    edges = np.frombuffer(offsets, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    return content.slice(int(edges[0]), int(edges[-1] - edges[0])) if content is not None else pa.py_buffer(b"")


def _check_lengths(lengths: Int64s) -> None:
    """Of sketches that are not dense."""
    bad = lengths[(lengths > REGISTERS) | (lengths % _SPARSE_BYTES != 0)]
    if len(bad):
        raise PackedValueError(
            f"a stored sketch has {bad[0]:,} bytes; it should have {REGISTERS:,}, or fewer in whole fours"
        )


def _check_cells(rows: Int64s, cells: Int64s) -> None:
    """Registers ascend within a row, and no rank is higher than a hash gives."""
    is_bad = (cells & _RANK_MASK) > _HASH_BITS + 1
    is_bad[1:] |= (rows[1:] == rows[:-1]) & (np.diff(cells >> _RANK_BITS) <= 0)
    is_bad |= (cells >> _RANK_BITS) >= REGISTERS
    if is_bad.any():
        size = np.count_nonzero(rows == rows[np.flatnonzero(is_bad)[0]])
        raise PackedValueError(f"a stored sketch of {size:,} registers is damaged: they make no sense")


@cache
def _sigma_table() -> npt.NDArray[np.float64]:
    """Ertl's sigma(x) = x + sum over k of x**(2**k) * 2**(k-1), for x = c / REGISTERS; infinite at 1."""
    power = np.arange(REGISTERS + 1) / REGISTERS
    total, step = power.copy(), 1.0
    while True:
        power = power * power
        grown = total + power * step
        if np.array_equal(grown[:-1], total[:-1]):
            break
        total, step = grown, step * 2
    total[-1] = np.inf
    return total


def _tau(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ertl's tau(x) = (1 - x - sum over k >= 1 of (1 - x**(2**-k))**2 * 2**-k) / 3; 0 at 0 and at 1."""
    inner = (x > 0) & (x < 1)
    result = np.zeros_like(x)
    if not inner.any():
        return result
    root, step = x[inner], 1.0
    total = 1 - root
    while True:
        root, step = np.sqrt(root), step / 2
        shrunk = total - (1 - root) ** 2 * step
        if np.array_equal(shrunk, total):
            break
        total = shrunk
    result[inner] = total / 3
    return result
