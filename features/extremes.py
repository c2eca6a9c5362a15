"""The least and the greatest value: the state behind minima and maxima."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import flat
from features.filters import Where, chosen, name_of
from features.runs import prefix_sums, sums
from features.states import Inputs, Kind, condition, inputs
from features.windows import Int64s


@dataclass(frozen=True)
class Extremes:
    """Bundle of extreme values, [size] each: how many values a state has seen, and the extreme of them (0 if none)."""

    counts: Int64s
    values: Int64s
    is_greatest: bool

    @property
    def size(self) -> int:
        """How many states."""
        return len(self.counts)

    @property
    def _extreme(self) -> np.ufunc:
        return np.maximum if self.is_greatest else np.minimum

    @property
    def _neutral(self) -> int:
        """What changes no extreme."""
        limits = np.iinfo(np.int64)
        return int(limits.min if self.is_greatest else limits.max)

    def _of(self, counts: Int64s, values: Int64s) -> "Extremes":
        return Extremes(counts, np.where(counts > 0, values, 0), self.is_greatest)

    def merge(self, starts: Int64s) -> "Extremes":
        """Extreme of every run."""
        if len(starts) == 0:
            return self._of(self.counts[:0], self.values[:0])
        values = np.where(self.counts > 0, self.values, self._neutral)
        return self._of(sums(self.counts, starts), self._extreme.reduceat(values, starts))

    def reader(self, owners: Int64s) -> Callable[[Int64s, Int64s], "Extremes"]:
        """Ranges from a tree of the extremes of 2, 4, 8 … neighbours: O(log n) steps for all ranges at once."""
        levels = [np.where(self.counts > 0, self.values, self._neutral)]
        while len(levels[-1]) > 1:
            whole = len(levels[-1]) // 2 * 2
            levels.append(self._extreme.reduce(levels[-1][:whole].reshape(-1, 2), axis=1))
        running = prefix_sums(self.counts)

        def read(lower: Int64s, upper: Int64s) -> Extremes:
            found = np.full(len(lower), self._neutral)
            low, high = lower.copy(), upper.copy()
            for level in levels:
                # An odd edge leaves one node of this level outside every wider node of the range.
                odd = np.flatnonzero((low < high) & (low & 1 == 1))
                found[odd] = self._extreme(found[odd], level[low[odd]])
                low[odd] += 1
                odd = np.flatnonzero((low < high) & (high & 1 == 1))
                high[odd] -= 1
                found[odd] = self._extreme(found[odd], level[high[odd]])
                low, high = low >> 1, high >> 1
            return self._of(running[upper] - running[lower], found)

        return read

    def values_or_null(self) -> pa.Array:
        """`int64`, null where nothing was seen."""
        return pa.array(self.values, pa.int64(), mask=self.counts == 0)

    def to_arrow(self) -> pa.Array:
        """`struct<count: int64, value: int64>` column."""
        return pa.StructArray.from_arrays(
            [pa.array(self.counts, pa.int64()), pa.array(self.values, pa.int64())], fields=list(_STORED)
        )


@dataclass(frozen=True)
class Extreme:
    """Least or greatest value of a whole-number column (null is no value)."""

    column: str
    is_greatest: bool
    where: Where = None

    @property
    def name(self) -> str:
        """For instance `max_start_time_ms`."""
        return f"{'max' if self.is_greatest else 'min'}_{self.column}" + name_of(self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`struct<count: int64, value: int64>`."""
        return _STORED

    @property
    def inputs(self) -> Inputs:
        """The column and the condition."""
        return inputs((self.column, Kind.WHOLE), condition(self.where))

    def lift(self, log: pa.Table) -> Extremes:
        """The value of each event that has one."""
        values = flat(log[self.column])
        is_seen = chosen(log, self.where) & np.asarray(values.is_valid())
        whole = np.asarray(pc.fill_null(values.cast(pa.int64()), 0), dtype=np.int64)
        return Extremes(is_seen.astype(np.int64), np.where(is_seen, whole, 0), self.is_greatest)

    def from_arrow(self, column: pa.Array) -> Extremes:
        """From the column that `to_arrow` gives; null is a state that has seen nothing."""
        counts, values = (np.asarray(pc.fill_null(part, 0), dtype=np.int64) for part in flat(column).flatten())
        return Extremes(counts, values, self.is_greatest)


_STORED = pa.struct([("count", pa.int64()), ("value", pa.int64())])
