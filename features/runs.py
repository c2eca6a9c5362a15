"""Runs: consecutive rows that belong together, and the vectorised loops over them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import LogError
from features.windows import Int64s

_LARGEST = int(np.iinfo(np.int64).max)


def run_starts(*columns: Int64s) -> Int64s:
    """First row of every run of rows that are equal in all columns (columns: [n], n may be 0)."""
    size = len(columns[0])
    if size == 0:
        return np.empty(0, dtype=np.int64)
    is_first = np.ones(size, dtype=np.bool_)
    is_first[1:] = False
    for column in columns:
        is_first[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(is_first)


def run_ends(*columns: Int64s) -> Int64s:
    """Last row of every run."""
    starts = run_starts(*columns)
    return np.append(starts[1:], len(columns[0])) - 1 if len(starts) else starts


def run_of_row(starts: Int64s, size: int) -> Int64s:
    """Which run each of `size` rows lies in."""
    is_first = np.zeros(size, dtype=np.int64)
    is_first[starts] = 1
    return np.cumsum(is_first) - 1


def bounds(sorted_rows: Int64s, size: int) -> Int64s:
    """[size + 1]: entries of row `r` lie at `bounds[r]:bounds[r + 1]`; the rows are ascending."""
    edges = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.bincount(sorted_rows, minlength=size), out=edges[1:])
    return edges


def expand(lower: Int64s, upper: Int64s) -> tuple[Int64s, Int64s]:
    """All places of the ranges `lower[i]:upper[i]`, range by range: (i, place), both [sum of lengths]."""
    lengths = upper - lower
    owners = np.repeat(np.arange(len(lengths)), lengths)
    first = np.cumsum(lengths) - lengths
    return owners, np.arange(len(owners)) + (lower - first)[owners]


def sums(values: Int64s, starts: Int64s) -> Int64s:
    """Sum of each run of `values`; no run is empty."""
    if len(starts) == 0:
        return np.empty(0, dtype=np.int64)
    return np.add.reduceat(values, starts)


def prefix_sums(values: Int64s) -> Int64s:
    """[n + 1] running totals from 0.

    They need no restart at each entity: in int64 the difference of two of them is exact even if the running
    total wraps round (arithmetic modulo 2**64), where floating point would cancel.
    """
    totals = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def order_of(owners: Int64s, times_ms: Int64s) -> Int64s:
    """Permutation into (owner, time) order, of equal rows in any: one sort of whole numbers where they fit in one."""
    if len(owners) == 0:
        return np.empty(0, dtype=np.int64)
    first_ms = int(times_ms.min())
    span_ms = int(times_ms.max()) - first_ms + 1
    if int(owners.max()) + 1 > _LARGEST // span_ms:
        return np.lexsort((times_ms, owners))
    return np.argsort(owners * span_ms + (times_ms - first_ms))


def order_by(owners: Int64s, times_ms: Int64s, ids: pa.Array | pa.ChunkedArray) -> Int64s:
    """Permutation into (owner, time, id) order.

    Ids are long and compared only where owner and time are equal, which is what makes this fast.
    """
    is_later = (owners[1:] > owners[:-1]) | ((owners[1:] == owners[:-1]) & (times_ms[1:] >= times_ms[:-1]))
    order = np.arange(len(owners)) if is_later.all() else np.lexsort((times_ms, owners))
    starts = run_starts(owners[order], times_ms[order])
    lengths = np.diff(starts, append=len(order))
    tied = np.flatnonzero(np.repeat(lengths > 1, lengths))
    if len(tied) == 0:
        return order
    run = np.repeat(np.arange(len(starts)), lengths)[tied]
    table = pa.table({"run": run, "id": ids.take(pa.array(order[tied]))})
    in_order = np.asarray(pc.sort_indices(table, sort_keys=[("run", "ascending"), ("id", "ascending")]))
    order[tied] = order[tied][in_order]
    return order


class SortedRows:
    """Rows in (owner, time) order, and binary search in them.

    Owner and time are folded into one int64, so that a probe is one `searchsorted`. Probes that come in
    ascending order are several times faster than others, because they find their neighbours in the cache.
    """

    def __init__(self, owners: Int64s, times_ms: Int64s) -> None:
        self.size = len(owners)
        self._first_ms = int(times_ms.min()) if self.size else 0
        # One value more than the times need, so that "after the last" is not the next owner's first.
        self._span_ms = int(times_ms.max()) - self._first_ms + 2 if self.size else 2
        if self.size and (int(owners.max()) + 1) > _LARGEST // self._span_ms:
            raise LogError(
                f"{int(owners.max()) + 1:,} entities over {self._span_ms:,} ms are too many for one log; "
                "split it by entity and call once for each part"
            )
        self._folded = owners * self._span_ms + (times_ms - self._first_ms)

    def first_at_or_after(self, owners: Int64s, instants_ms: Int64s) -> Int64s:
        """First row of the owner at or after the instant (its end, if there is none)."""
        since = np.clip(instants_ms - self._first_ms, 0, self._span_ms - 1)
        return np.searchsorted(self._folded, owners * self._span_ms + since).astype(np.int64, copy=False)


def concatenate(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The parts in a row; no parts give no rows."""
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
