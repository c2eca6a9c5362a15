"""What falls on each key: shares, modes, vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from features.aggregates.base import Aggregate, Flags, Numbers, Reading, offsets_of
from features.aggregates.totals import Count, Sum
from features.columns import codes_in, take
from features.filters import Where
from features.keyed import KeyedTotal, KeyedTotals
from features.runs import bounds
from features.states import State
from features.windows import Int64s

SHARES = pa.map_(pa.string(), pa.float64())


@dataclass(frozen=True)
class Share(Aggregate):
    """Share of a column's sum (without one, of the events) that falls on each key.

    Shares sum to 1; keys with none are left out. An event with a list of keys shares its amount equally among them.
    """

    of: str | None
    by: str
    where: Where = None

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
        keyed = readings[0].keyed()
        whole = keyed.row_totals()[keyed.rows]
        kept = whole != 0
        return _map(keyed, keyed.rows[kept], keyed.keys[kept], keyed.totals[kept] / whole[kept])


@dataclass(frozen=True)
class TopShares(Aggregate):
    """The `limit` greatest of the shares, greatest first, equal ones by the alphabet; shares of the whole, not of them.

    So they sum to 1 where there are no more keys than that.
    """

    of: str | None
    by: str
    limit: int
    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by key."""
        return (KeyedTotal(self.of, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """Map from key to share, greatest first."""
        return SHARES

    def mistake(self, window_ms: int) -> str | None:
        """The top has room."""
        return None if self.limit > 0 else f"the top {self.limit} is empty; give 1 or more"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where the sum over all keys is 0."""
        keyed = readings[0].keyed()
        order = np.lexsort((keyed.keys, -keyed.totals, keyed.rows))
        rows, whole = keyed.rows[order], keyed.row_totals()
        is_top = np.arange(len(rows)) - bounds(keyed.rows, keyed.size)[rows] < self.limit
        order = order[is_top & (whole[rows] != 0)]
        rows = keyed.rows[order]
        return _map(keyed, rows, keyed.keys[order], keyed.totals[order] / whole[rows])


@dataclass(frozen=True)
class Mode(Aggregate):
    """Key with the largest sum of a column; of equal ones the first in the alphabet."""

    of: str | None
    by: str
    where: Where = None

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
        keyed = readings[0].keyed()
        return take(keyed.vocabulary, keyed.largest())


@dataclass(frozen=True)
class RatioByKey(Aggregate):
    """One count or sum over another for each key; keys whose other is 0 are left out."""

    numerator: Count | Sum
    denominator: Count | Sum
    by: str

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by key of both."""
        return (_by_key(self.numerator, self.by), _by_key(self.denominator, self.by))

    @property
    def arrow_type(self) -> pa.DataType:
        """Map from key to ratio, keys ascending."""
        return SHARES

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where there is no key left."""
        above, below = readings[0].keyed(0), readings[0].keyed(1)
        width = len(below.vocabulary) + 1
        keys = codes_in(above.vocabulary, below.vocabulary)[above.keys]
        known = np.flatnonzero(keys >= 0)
        asked = above.rows[known] * width + keys[known]
        order = np.argsort(asked)
        asked, amounts = asked[order], np.append(above.totals[known][order], 0)
        wanted = below.rows * width + below.keys
        place = np.searchsorted(asked, wanted)
        is_there = np.append(asked, -1)[place] == wanted
        return _map(below, below.rows, below.keys, np.where(is_there, amounts[place], 0) / below.totals)


@dataclass(frozen=True)
class Vector(Aggregate):
    """Sum of a column (without one, the events) in each of `buckets` buckets (0 and up), in units of `unit`.

    `as_shares`: of the sum over the buckets, instead.
    """

    of: str | None
    by: str
    buckets: int
    unit: int = 1
    where: Where = None
    as_shares: bool = False

    @property
    def states(self) -> tuple[State, ...]:
        """Sums by bucket."""
        return (KeyedTotal(self.of, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """List of `buckets` real numbers."""
        return pa.list_(pa.float64())

    def mistake(self, window_ms: int) -> str | None:
        """There are buckets and a unit."""
        is_right = self.buckets > 0 and self.unit > 0
        return None if is_right else f"{self.buckets} buckets in units of {self.unit} hold nothing; give 1 or more"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null for an empty window; shares also where there is nothing in the buckets."""
        grid = _grid(readings[0].keyed(), self.buckets)
        if not self.as_shares:
            return _lists(grid / self.unit, readings[0].is_occupied)
        whole = grid.sum(axis=1)
        return _lists(grid / np.where(whole == 0, 1, whole)[:, np.newaxis], whole != 0)


@dataclass(frozen=True)
class Survival(Aggregate):
    """Of the events with a bucket (0 and up), the share whose bucket is at least 1, 2 … `buckets`."""

    by: str
    buckets: int
    where: Where = None

    @property
    def states(self) -> tuple[State, ...]:
        """Events by bucket."""
        return (KeyedTotal(None, self.by, self.where),)

    @property
    def arrow_type(self) -> pa.DataType:
        """List of `buckets` shares, none greater than the one before."""
        return pa.list_(pa.float64())

    def mistake(self, window_ms: int) -> str | None:
        """There are buckets."""
        return None if self.buckets > 0 else f"{self.buckets} buckets hold nothing; give 1 or more"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Null where no event has a bucket."""
        grid = _grid(readings[0].keyed(), self.buckets + 1)
        reached = np.cumsum(grid[:, ::-1], axis=1)[:, ::-1]
        whole = reached[:, 0]
        return _lists(reached[:, 1:] / np.where(whole == 0, 1, whole)[:, np.newaxis], whole != 0)


def _by_key(amount: Count | Sum, by: str) -> KeyedTotal:
    return KeyedTotal(amount.column if isinstance(amount, Sum) else None, by, amount.where)


def _map(keyed: KeyedTotals, rows: Int64s, keys: Int64s, values: Numbers) -> pa.Array:
    """Map array of entries by row; rows without one are null."""
    offsets = offsets_of(np.bincount(rows, minlength=keyed.size))
    return pa.MapArray.from_arrays(offsets, keyed.vocabulary.take(pa.array(keys)), pa.array(values))


def _grid(keyed: KeyedTotals, buckets: int) -> Int64s:
    """[size, buckets] totals of the buckets 0 and up; others are left out."""
    bucket = np.array([int(key) for key in keyed.vocabulary.to_pylist()], dtype=np.int64)[keyed.keys]
    grid = np.zeros((keyed.size, buckets), dtype=np.int64)
    inside = (bucket >= 0) & (bucket < buckets)
    grid[keyed.rows[inside], bucket[inside]] = keyed.totals[inside]
    return grid


def _lists(grid: Numbers, is_there: Flags) -> pa.Array:
    """List array of the grid's rows, null where there is none."""
    return pa.ListArray.from_arrays(offsets_of(is_there * grid.shape[1]), pa.array(grid[is_there].ravel()))
