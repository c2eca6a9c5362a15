"""Histogram with a bounded relative error: the state behind percentiles.

C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
PVLDB 12(12), 2019. Bucket i holds the values in (gamma**(i-1), gamma**i] with gamma = (1 + e) / (1 - e) and is answered
by 2 gamma**i / (gamma + 1), which is within e of every value in it; e is 1 %. Counts are whole, buckets are never
collapsed, and their bounds are exact whole numbers: the same on every machine, in whatever order values come.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import encode, flat
from features.filters import Where, chosen, name_of
from features.keyed import KeyedTotal, KeyedTotals
from features.states import Inputs, Kind, condition, inputs
from features.windows import Int64s

# gamma = (1 + 1 %) / (1 - 1 %) as a fraction
_NUMERATOR, _DENOMINATOR = 101, 99
_LARGEST = int(np.iinfo(np.int64).max)


@cache
def _buckets() -> tuple[Int64s, npt.NDArray[np.float64]]:
    """(greatest whole number, answer) of the paper's buckets 0, 1, 2 … as far as int64 goes, each rounded once."""
    bounds: list[int] = []
    answers: list[float] = []
    above, below = 1, 1  # gamma**i = above / below
    while not bounds or bounds[-1] < _LARGEST:
        bounds.append(min(above // below, _LARGEST))
        answers.append(2 * above * _DENOMINATOR / (below * (_NUMERATOR + _DENOMINATOR)))
        above, below = above * _NUMERATOR, below * _DENOMINATOR
    return np.array(bounds, dtype=np.int64), np.array(answers)


def bucket_of(values: Int64s) -> Int64s:
    """Bucket of each value: 0 for 0, i + 1 for a value of the paper's bucket i, and its mirror image below 0."""
    size = np.abs(np.maximum(values, -_LARGEST))
    return np.where(values == 0, 0, np.sign(values) * (np.searchsorted(_buckets()[0], size) + 1))


def value_of(buckets: Int64s) -> npt.NDArray[np.float64]:
    """What a bucket is answered by: within 1 % of all values in it."""
    answers: npt.NDArray[np.float64] = np.sign(buckets) * _buckets()[1][np.abs(buckets) - 1]
    return answers


@dataclass(frozen=True)
class Histogram:
    """How many values of a whole-number column lie in each bucket (null is no value)."""

    column: str
    where: Where = None

    @property
    def name(self) -> str:
        """For instance `histogram_start_time_ms`."""
        return f"histogram_{self.column}" + name_of(self.where)

    @property
    def arrow_type(self) -> pa.DataType:
        """`map<string, int64>`: buckets as decimal digits."""
        return pa.map_(pa.string(), pa.int64())

    @property
    def inputs(self) -> Inputs:
        """The column and the condition."""
        return inputs((self.column, Kind.WHOLE), condition(self.where))

    def lift(self, log: pa.Table) -> KeyedTotals:
        """One value for each event that has it: a count of 1 under its bucket."""
        values = flat(log[self.column])
        rows = np.flatnonzero(chosen(log, self.where) & np.asarray(values.is_valid()))
        whole = np.asarray(values.take(pa.array(rows)).cast(pa.int64()), dtype=np.int64)
        buckets, codes = encode(pc.cast(pa.array(bucket_of(whole)), pa.string()))
        return KeyedTotals(log.num_rows, rows, codes, np.ones(len(rows), dtype=np.int64), buckets)

    def from_arrow(self, column: pa.Array) -> KeyedTotals:
        """From a `map<string, int64>` column."""
        return KeyedTotal(None, self.column).from_arrow(column)
