"""How numbers are spread: counts in narrow buckets, from which quantiles are answered and which merge exactly.

C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
PVLDB 12(12), 2019, with the mapping that they call linearly interpolated: a bucket is what the sign, the exponent and
the first 7 bits of the fraction of a float64 say (IEEE 754), so its bounds are the same on every machine and it is at
most 2**-7 of its values wide. Each bucket also keeps its least and greatest value: where it holds one value only, as
most buckets of counts and shares do, quantiles are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.runs import concatenate, run_ends, run_starts, sums
from features.windows import Int64s

Numbers = npt.NDArray[np.float64]
_FRACTION_BITS = 52
_KEPT_BITS = 7
RELATIVE_ERROR = 2.0**-_KEPT_BITS


def bucket_of(values: Numbers) -> Int64s:
    """Bucket of each finite number, ascending with it: 0 for 0, mirrored below 0; [n]."""
    bits = np.abs(values).view(np.int64) >> (_FRACTION_BITS - _KEPT_BITS)
    return np.where(values < 0, -bits, bits)


@dataclass(frozen=True)
class NumberCounts:
    """Finite numbers by bucket: buckets ascending, how many each holds, its least and its greatest; [buckets] each."""

    buckets: Int64s
    counts: Int64s
    least: Numbers
    greatest: Numbers

    @classmethod
    def of(cls, values: Numbers) -> "NumberCounts":
        """The numbers, in any order; [n], all finite."""
        ascending = np.sort(values)
        buckets = bucket_of(ascending)
        starts = run_starts(buckets)
        counts = np.diff(np.append(starts, len(buckets)))
        return cls(buckets[starts], counts, ascending[starts], ascending[run_ends(buckets)])

    @classmethod
    def merged(cls, parts: Sequence["NumberCounts"]) -> "NumberCounts":
        """What `of` makes of the numbers of all parts together, to the bit."""
        buckets = concatenate([part.buckets for part in parts])
        order = np.argsort(buckets, kind="stable")
        starts = run_starts(buckets[order])
        if len(starts) == 0:
            return cls.of(np.empty(0))
        counts = concatenate([part.counts for part in parts])[order]
        least = concatenate([part.least for part in parts])[order]
        greatest = concatenate([part.greatest for part in parts])[order]
        return cls(
            buckets[order][starts],
            sums(counts, starts),
            np.minimum.reduceat(least, starts),
            np.maximum.reduceat(greatest, starts),
        )

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The number of rank ceil(share * size), from 1, within `RELATIVE_ERROR` of it; there must be a number.

        That is NumPy's `inverted_cdf`, definition 1 of R. J. Hyndman, Y. Fan, "Sample quantiles in statistical
        packages", The American Statistician 50(4), 1996.
        """
        rank = max(1, int(np.ceil(share * self.size)))
        until = np.cumsum(self.counts)
        place = int(np.searchsorted(until, rank))
        count, least, greatest = int(self.counts[place]), float(self.least[place]), float(self.greatest[place])
        if count == 1 or least == greatest:
            return least
        return least + (greatest - least) * (rank - 1 - int(until[place]) + count) / (count - 1)
