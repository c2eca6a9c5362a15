"""What became known of people, and when: rows sorted by key and instant, searched without a join.

The arrays are plain NumPy, so that processes of one machine share them, and a search costs as much as what is asked,
however long the history is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.distinct import Codes

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Chronicle:
    """The rows of every key, in the order of time. Keys are pseudonyms: no two differ only in trailing zero bytes."""

    keys: NDArray[np.bytes_]  # distinct, ascending, shape (k,)
    starts: Rows  # the first row of each key, and the number of rows, shape (k + 1,)
    known_ms: Rows  # ascending within a key, shape (n,)

    @classmethod
    def of(cls, keys: pa.Array, known_ms: Rows) -> "Chronicle":
        """From rows sorted by key (text, by its bytes) and instant, no two of the same key and instant."""
        texts = _fixed_width(keys)
        begins = np.append(True, texts[1:] != texts[:-1])[: len(texts)]
        starts = np.append(np.flatnonzero(begins), len(texts))
        return cls(texts[begins], starts, known_ms)

    @property
    def names(self) -> pa.Array:
        """The keys as text, shape (k,)."""
        return pa.array(self.keys, pa.binary()).cast(pa.string())

    def find(self, keys: pa.Array) -> Rows:
        """The place of each key in `keys`, shape (m,); -1 for one of which nothing is known."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        asked = _fixed_width(keys)
        order = np.argsort(asked)  # neighbours are looked for together: their path is in the cache
        places = np.empty(len(asked), np.int64)
        places[order] = np.searchsorted(self.keys, asked[order])
        places[places == len(self.keys)] = 0
        return np.where(self.keys[places] == asked, places, -1)

    def places(self, names: Sequence[pa.Array], codes: Codes) -> Rows:
        """The place in `keys` of `name[code]` for each of `names` and `codes`, shape (names, n); -1 for none.

        `names` are other names of the same people, the code -1 is nobody. Names that nobody has here are left out.
        """
        found = [np.append(self.find(name), -1) for name in names]
        known = [places[codes] for places in found if (places >= 0).any()]
        return np.stack(known) if known else np.empty((0, len(codes)), np.int64)

    def latest(self, places: Rows, instants_ms: Rows) -> Rows:
        """The newest row known at or before each instant, of the key at each place; -1 where there is none."""
        low = np.where(places < 0, 0, self.starts[places])  # [low, high): where the first later row may be
        first, high = low, np.where(places < 0, 0, self.starts[places + 1])
        while (open_rows := low < high).any():
            middle = (low + high) // 2
            is_later = self.known_ms[np.minimum(middle, len(self.known_ms) - 1)] > instants_ms
            high = np.where(open_rows & is_later, middle, high)
            low = np.where(open_rows & ~is_later, middle + 1, low)
        return np.where(low > first, low - 1, -1)

    def first(self, places: Rows) -> Rows:
        """The oldest row of the key at each place; -1 where there is no key."""
        return np.where(places < 0, -1, self.starts[places])


def _fixed_width(texts: pa.Array) -> NDArray[np.bytes_]:
    """Texts as bytes of one width, which compare as the texts' UTF-8 does; nulls are not allowed."""
    if not len(texts):
        return np.empty(0, "S1")
    widths = pc.min_max(pc.binary_length(texts)).as_py()
    if widths["min"] == widths["max"] > 0:  # as pseudonyms are
        width = widths["max"]
        fixed = texts.cast(pa.binary()).cast(pa.binary(width))
        return np.frombuffer(fixed.buffers()[1], f"S{width}", len(fixed), fixed.offset * width)
    return np.array(texts.cast(pa.binary()).to_pylist(), dtype=np.bytes_)
