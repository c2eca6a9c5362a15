"""The vocabulary of aggregates: what a feature is of the events in its window.

An aggregate says which states it needs, how many windows it reads them over, and what it makes of them. Empty
windows: counts and sums are 0, everything else is null; a ratio with denominator 0 is null.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import take
from features.keyed import KeyedTotal, KeyedTotals
from features.recent import Recent
from features.states import Bundle, Distinct, State, Total
from features.windows import DAY_MS, Int64s

SHARES = pa.map_(pa.string(), pa.float64())


@dataclass(frozen=True)
class Reading:
    """States read over one window for n rows."""

    bundles: tuple[Bundle, ...]
    is_occupied: npt.NDArray[np.bool_]
    """[n] whether any event lies in the window."""

    def totals(self, place: int) -> Int64s:
        """The sums of the state at this place among the aggregate's states; [n]."""
        return _as(self.bundles[place]).values  # type: ignore[no-any-return]


class Aggregate(ABC):
    """Base of the vocabulary. Subclasses are frozen dataclasses: equal where they say the same."""

    @property
    @abstractmethod
    def states(self) -> tuple[State, ...]:
        """States that are read."""

    @property
    @abstractmethod
    def arrow_type(self) -> pa.DataType:
        """Type of the feature."""

    @property
    def shifts_ms(self) -> tuple[int, ...]:
        """How far back each window that is read ends; most aggregates read the one that ends now."""
        return (0,)

    @abstractmethod
    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The feature from one reading for each shift; [n]."""


@dataclass(frozen=True)
class Count(Aggregate):
    """Number of events, or of those whose flag `where` is true."""

    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """One total."""
        return (Total(where=self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Whole number."""
        return pa.int64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The total; 0 for an empty window."""
        return pa.array(readings[0].totals(0), pa.int64())


@dataclass(frozen=True)
class Sum(Aggregate):
    """Sum of a whole-number or Boolean column (null counts 0)."""

    column: str
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """One total."""
        return (Total(self.column, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Whole number."""
        return pa.int64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The total; 0 for an empty window."""
        return pa.array(readings[0].totals(0), pa.int64())


@dataclass(frozen=True)
class Ratio(Aggregate):
    """One sum or count over another; null where the second is 0."""

    numerator: Sum | Count
    denominator: Sum | Count

    @property
    def states(self) -> tuple[State, ...]:
        """Two totals."""
        return self.numerator.states + self.denominator.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """First total over the second."""
        return quotient(readings[0].totals(0), readings[0].totals(1))


@dataclass(frozen=True)
class Mean(Aggregate):
    """Mean of a whole-number or Boolean column over the events that have a value in it."""

    column: str
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """The sum and how many values it has."""
        return (Total(self.column, self.where), Total(self.column, self.where, present=True))

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Sum over number."""
        return quotient(readings[0].totals(0), readings[0].totals(1))


@dataclass(frozen=True)
class Share(Aggregate):
    """Share of a column's sum that falls on each key; shares sum to 1, keys with none are left out.

    An event with a list of keys shares its amount equally among them.
    """

    of: str | None
    by: str
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by key."""
        return (KeyedTotal(self.of, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Map from key to share, keys ascending."""
        return SHARES

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where the sum over all keys is 0."""
        keyed = _keyed(readings[0])
        whole = keyed.row_totals()[keyed.rows]
        kept = whole != 0
        offsets = _offsets(np.bincount(keyed.rows[kept], minlength=keyed.size))
        keys = keyed.vocabulary.take(pa.array(keyed.keys[kept]))
        return pa.MapArray.from_arrays(offsets, keys, pa.array(keyed.totals[kept] / whole[kept]))


@dataclass(frozen=True)
class Mode(Aggregate):
    """Key with the largest sum of a column; of equal ones the first in the alphabet."""

    of: str | None
    by: str
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by key."""
        return (KeyedTotal(self.of, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Text."""
        return pa.string()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where no key has a sum."""
        keyed = _keyed(readings[0])
        return take(keyed.vocabulary, keyed.largest())


@dataclass(frozen=True)
class Vector(Aggregate):
    """Sum of a column in each of `buckets` buckets (0 and up), in units of `unit`."""

    of: str
    by: str
    buckets: int
    unit: int = 1
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by bucket."""
        return (KeyedTotal(self.of, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """List of `buckets` real numbers."""
        return pa.list_(pa.float64())

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null for an empty window."""
        keyed = _keyed(readings[0])
        bucket = np.array([int(key) for key in keyed.vocabulary.to_pylist()], dtype=np.int64)[keyed.keys]
        grid = np.zeros((keyed.size, self.buckets))
        inside = (bucket >= 0) & (bucket < self.buckets)
        grid[keyed.rows[inside], bucket[inside]] = keyed.totals[inside] / self.unit
        occupied = readings[0].is_occupied
        return pa.ListArray.from_arrays(_offsets(occupied * self.buckets), pa.array(grid[occupied].ravel()))


@dataclass(frozen=True)
class DistinctCount(Aggregate):
    """How many distinct values of a text column: a HyperLogLog estimate, standard error 0.81 %."""

    column: str
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """One sketch."""
        return (Distinct(self.column, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Whole number."""
        return pa.int64()

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The estimate; 0 for an empty window."""
        return pa.array(_as(readings[0].bundles[0]).counts(), pa.int64())


@dataclass(frozen=True)
class Last(Aggregate):
    """The last `limit` values of a text column, oldest first."""

    column: str
    limit: int
    where: str | None = None

    @property
    def states(self) -> tuple[State, ...]:
        """One list."""
        return (Recent(self.column, self.limit, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """List of text."""
        return pa.list_(pa.string())

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where there is no value."""
        lengths, values = _as(readings[0].bundles[0]).values()
        return pa.ListArray.from_arrays(_offsets(lengths), values)


@dataclass(frozen=True)
class Trend(Aggregate):
    """An amount now over its mean in the same window on the `days` days before; null where that mean is 0."""

    of: DistinctCount | Count | Sum
    days: int = 7

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the amount."""
        return self.of.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    @property
    def shifts_ms(self) -> tuple[int, ...]:
        """Now, and the same clock time (UTC) on each day before."""
        return tuple(day * DAY_MS for day in range(self.days + 1))

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Amount times days over the sum of the days before: whole numbers until the one division."""
        now, *before = (np.asarray(self.of.finish([reading]), dtype=np.int64) for reading in readings)
        return quotient(now * self.days, np.sum(before, axis=0, dtype=np.int64))


def quotient(numerator: Int64s, denominator: Int64s) -> pa.Array:
    """float64; null where the denominator is 0."""
    is_zero = denominator == 0
    return pa.array(numerator / np.where(is_zero, 1, denominator), mask=is_zero)


def _offsets(lengths: Int64s) -> pa.Array:
    """Offsets of a list or map array whose empty rows are null."""
    return pa.array(np.append(0, np.cumsum(lengths)), pa.int32(), mask=np.append(lengths == 0, False))


def _keyed(reading: Reading) -> KeyedTotals:
    return _as(reading.bundles[0])  # type: ignore[no-any-return]


def _as(bundle: Bundle) -> Any:
    """An aggregate knows the bundles of its own states; the type checker cannot."""
    return bundle
