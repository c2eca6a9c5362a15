"""The point-in-time join: to each row the values that a service would have had at the row's instant."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import codes_in, encode, flat, milliseconds, require_columns, take
from features.errors import LogError
from features.runs import SortedRows
from features.windows import Cadence, Int64s, valued_at_ms


def as_of_join(
    left: pa.Table,
    right: pa.Table,
    *,
    key: str,
    left_time: str,
    ttl_ms: int,
    cadence: Cadence,
    delay_ms: int,
    columns: Sequence[str],
    right_time: str = "event_timestamp",
    created: str = "created_timestamp",
    last_event: str = "last_event_timestamp",
) -> pa.Table:
    """The left table with `columns` of the right row that was current at each row's `left_time`.

    That is the row of the same key with the latest `right_time` at or before `floor(t - delay, cadence)`; of
    several, the one with the latest `created`; rows created after `t` are invisible. Its columns are null if its
    `last_event` is more than the TTL before `t`; an expired row does not give way to an older one. Left rows are
    neither dropped, merged nor reordered; null keys, null times and unknown keys give nulls.

    Raises:
        LogError: a column is missing, or `columns` are in the left table already.
    """
    require_columns(left, [key, left_time], "the left table")
    require_columns(right, [key, right_time, created, last_event, *columns], "the right table")
    doubled = [name for name in columns if name in left.column_names]
    if doubled:
        raise LogError(f"the left table has column(s) {', '.join(doubled)} already; rename or drop them there")
    rows = np.flatnonzero(np.asarray(flat(left[left_time]).is_valid()))
    asked_ms = milliseconds(left[left_time].take(pa.array(rows)))
    right = right.filter(right[key].is_valid())
    entities, right_owners = encode(right[key])
    owners = codes_in(left[key].take(pa.array(rows)), entities)
    rows, asked_ms, owners = rows[owners >= 0], asked_ms[owners >= 0], owners[owners >= 0]

    times_ms, created_ms = milliseconds(right[right_time]), milliseconds(right[created])
    order = np.lexsort((created_ms, times_ms, right_owners))
    right_owners, times_ms, created_ms = right_owners[order], times_ms[order], created_ms[order]
    until_ms = valued_at_ms(asked_ms, cadence, delay_ms)
    current = SortedRows(right_owners, times_ms).first_at_or_after(owners, until_ms + 1) - 1
    current = latest_visible(created_ms, current, asked_ms)
    is_own = current >= 0
    is_own[is_own] = right_owners[current[is_own]] == owners[is_own]
    rows, asked_ms, current = rows[is_own], asked_ms[is_own], order[current[is_own]]

    is_fresh = asked_ms - milliseconds(right[last_event])[current] <= ttl_ms
    place = np.full(left.num_rows, -1, dtype=np.int64)
    place[rows[is_fresh]] = current[is_fresh]
    for name in columns:
        left = left.append_column(name, take(flat(right[name]), place))
    return left


def latest_visible(created_ms: Int64s, current: Int64s, asked_ms: Int64s) -> Int64s:
    """The last row at or before `current[i]` created no later than `asked_ms[i]`; -1 if there is none.

    A descent in a tree of block minima: O(log n) steps for all rows at once, however many corrections were
    created late. Rows whose current one is visible, almost all as a rule, take no step.
    """
    found = current.copy()
    hidden = np.flatnonzero((current >= 0) & (created_ms[np.maximum(current, 0)] > asked_ms))
    if len(hidden) == 0:
        return found
    levels = _block_minima(created_ms)
    end, asked_ms = current[hidden], asked_ms[hidden]  # only rows before the hidden one are left to look at
    block = np.full(len(hidden), -1, dtype=np.int64)
    depth = np.zeros(len(hidden), dtype=np.int64)
    for level, minima in enumerate(levels):
        # An odd end leaves the last block of this level outside every wider block: look there first.
        odd = np.flatnonzero((block < 0) & (end >> level & 1 == 1))
        last = (end[odd] >> level) - 1
        hit = minima[last] <= asked_ms[odd]
        block[odd[hit]], depth[odd[hit]] = last[hit], level
        end[odd[~hit]] = last[~hit] << level
    for level in range(len(levels) - 2, -1, -1):
        inside = np.flatnonzero((block >= 0) & (depth > level))
        right = 2 * block[inside] + 1
        block[inside] = np.where(levels[level][right] <= asked_ms[inside], right, right - 1)
    found[hidden] = block
    return found


def _block_minima(values: Int64s) -> list[npt.NDArray[np.int64]]:
    """Least value of every whole block of 2**level values, level by level, down to one block."""
    levels = [values]
    while len(levels[-1]) > 1:
        whole = len(levels[-1]) // 2 * 2
        levels.append(levels[-1][:whole].reshape(-1, 2).min(axis=1))
    return levels
