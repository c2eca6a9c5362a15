"""Single values of the events in a window: extremes, percentiles, the first and the last."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.aggregates.base import Aggregate, Reading, as_is, offsets_of
from features.columns import take
from features.extremes import Extreme
from features.filters import Where
from features.histograms import Histogram, value_of
from features.keyed import KeyedTotals
from features.recent import Recent
from features.runs import bounds
from features.states import State


@dataclass(frozen=True)
class _OfExtremes(Aggregate):
    column: str
    where: Where = None

    @property
    def arrow_type(self) -> pa.DataType:
        """Whole number."""
        return pa.int64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where no event has a value."""
        return as_is(readings[0].bundles[0]).values_or_null()


@dataclass(frozen=True)
class Min(_OfExtremes):
    """Least value of a whole-number or Boolean column."""

    @property
    def states(self) -> tuple[State, ...]:
        """One extreme."""
        return (Extreme(self.column, False, self.where),)


@dataclass(frozen=True)
class Max(_OfExtremes):
    """Greatest value of a whole-number or Boolean column."""

    @property
    def states(self) -> tuple[State, ...]:
        """One extreme."""
        return (Extreme(self.column, True, self.where),)


@dataclass(frozen=True)
class Percentile(Aggregate):
    """A quantile of a whole-number column, within 1 % of its value: of n values in order, that at floor(q (n - 1))."""

    column: str
    quantile: float
    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """One histogram."""
        return (Histogram(self.column, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def mistake(self, window_ms: int) -> str | None:
        """A quantile is a share."""
        return None if 0 <= self.quantile <= 1 else f"quantile {self.quantile} is bad; give a share from 0 to 1"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where no event has a value."""
        counts: KeyedTotals = readings[0].keyed()
        buckets = np.array([int(key) for key in counts.vocabulary.to_pylist()], dtype=np.int64)[counts.keys]
        order = np.lexsort((buckets, counts.rows))
        edges = bounds(counts.rows, counts.size)
        until = np.append(0, np.cumsum(counts.totals[order]))
        filled = np.flatnonzero(np.diff(edges))
        before, after = until[edges[filled]], until[edges[filled + 1]]
        rank = before + np.floor(self.quantile * (after - before - 1)).astype(np.int64)
        place = np.full(counts.size, -1, dtype=np.int64)
        place[filled] = np.searchsorted(until, rank, side="right") - 1
        return take(pa.array(value_of(buckets[order])), place)


@dataclass(frozen=True)
class _OfRecents(Aggregate):
    column: str
    limit: int | None = None
    where: Where = None
    is_whole: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """Text or whole number; with a limit a list of them."""
        value = pa.int64() if self.is_whole else pa.string()
        return value if self.limit is None else pa.list_(value)

    def mistake(self, window_ms: int) -> str | None:
        """A list has room."""
        return "a limit of 0 keeps nothing; give 1 or more" if self.limit is not None and self.limit < 1 else None

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where there is no value."""
        lengths, values = as_is(readings[0].bundles[0]).values()
        if self.limit is None:
            return take(values, np.where(lengths > 0, np.cumsum(lengths) - 1, -1))
        return pa.ListArray.from_arrays(offsets_of(lengths), values)


@dataclass(frozen=True)
class Last(_OfRecents):
    """The last value of a column by (time, id); with a `limit` the list of the last ones, oldest first.

    The column is text, or of whole numbers where `is_whole`.
    """

    @property
    def states(self) -> tuple[State, ...]:
        """One list."""
        return (Recent(self.column, self.limit or 1, self.where, is_whole=self.is_whole),)


@dataclass(frozen=True)
class First(_OfRecents):
    """The first value of a column by (time, id); with a `limit` the list of the first ones, oldest first."""

    @property
    def states(self) -> tuple[State, ...]:
        """One list."""
        return (Recent(self.column, self.limit or 1, self.where, is_first=True, is_whole=self.is_whole),)
