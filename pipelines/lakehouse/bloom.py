"""Split-block Bloom filters of Parquet files: is a value possibly in a row group, without reading the row group.

pyarrow writes them and cannot ask them. The format is Parquet's own (apache/parquet-format, BloomFilter.md, after
Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters", 2007): a Thrift header, then blocks of
256 bits. A value is hashed by XXH64 with seed 0; the upper half of the hash chooses the block, the lower half one bit
in each of the block's eight words.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

# A person has some hundred ids, and each may be mistaken to be there: at 1 in 10,000 a file is read in vain for about
# 1 in 100 row groups. It takes 21 bits for each distinct id of a row group, rounded up to a power of two.
FALSE_POSITIVES = 1e-4

_AT_ONCE = 1024
_WORDS = 8  # of 32 bits, in a block
_SALTS = np.array(
    [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint32
)
_SIZE_FIELD = 0x15  # Thrift's compact protocol: field 1, a whole number, the size of the blocks in bytes
# Fields 2 to 4, each a union of which the only member so far is set: split blocks, XXH64, uncompressed; then the end.
_ONLY_KIND = bytes.fromhex("1c1c0000" * 3 + "00")

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class BloomFilter:
    """One column of one row group."""

    blocks: NDArray[np.uint32]  # shape (blocks, 8)

    @classmethod
    def parse(cls, raw: bytes) -> "BloomFilter | None":
        """From its bytes in the file. None for a kind that this reader does not know, which may hold anything."""
        if not raw or raw[0] != _SIZE_FIELD:
            return None
        size, at = _varint(raw, 1)
        size_bytes = size >> 1  # zigzag, of a number that is not negative
        start = at + len(_ONLY_KIND)
        if raw[at:start] != _ONLY_KIND or len(raw) - start < size_bytes or size_bytes % (4 * _WORDS) or not size_bytes:
            return None
        return cls(np.frombuffer(raw, "<u4", size_bytes // 4, start).reshape(-1, _WORDS))

    def may_hold(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Of each hash whether a value of it may be there, shape (n,). False is certain."""
        block = ((hashes >> np.uint64(32)) * np.uint64(len(self.blocks))) >> np.uint64(32)
        low = hashes.astype(np.uint32)[:, np.newaxis]
        bits = np.uint32(1) << ((low * _SALTS) >> np.uint32(27))
        held: NDArray[np.bool_] = (self.blocks[block] & bits == bits).all(axis=1)
        return held

    def may_hold_any(self, hashes: Hashes) -> bool:
        """Whether one of the values may be there; of very many some is, and it is found among the first."""
        return any(self.may_hold(hashes[start : start + _AT_ONCE]).any() for start in range(0, len(hashes), _AT_ONCE))


def hashes_of(values: Iterable[str]) -> Hashes:
    """XXH64 of each text as Parquet hashes it: its bytes in UTF-8, seed 0; shape (n,)."""
    return np.fromiter((xxhash.xxh64_intdigest(value.encode()) for value in values), np.uint64)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where it ends."""
    number = shift = 0
    for place in range(at, min(at + 5, len(raw))):
        number |= (raw[place] & 0x7F) << shift
        if raw[place] < 0x80:
            return number, place + 1
        shift += 7
    return 0, at
