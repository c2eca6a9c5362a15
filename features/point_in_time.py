"""The point-in-time join: to each row the values that a service would have had at the row's instant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import codes_in, encode, flat, milliseconds, require_columns, take
from features.declarations import CREATED, EVENT_TIME, LAST_EVENT, FeatureGroup
from features.errors import LogError
from features.runs import SortedRows
from features.timeline import answers
from features.windows import Cadence, Int64s, valued_at_ms


@dataclass(frozen=True)
class Versions:
    """Versions of keys' values in (key, time, created) order, and which of them was current when."""

    keys: pa.Array
    owners: Int64s
    created_ms: Int64s
    rows: SortedRows
    places: Int64s
    """Where each version stands in the table that it came from."""

    @classmethod
    def of(cls, table: pa.Table, key: str, time: str, created: str) -> "Versions":
        """From a table in any order, best in this one; rows of no key are left out."""
        keys, owners = encode(table[key])
        times_ms, created_ms = milliseconds(table[time], time), milliseconds(table[created], created)
        places = np.arange(len(owners))
        if not _is_sorted(owners, times_ms, created_ms):
            places = np.lexsort((created_ms, times_ms, owners))
            owners, times_ms, created_ms = owners[places], times_ms[places], created_ms[places]
        known = int(np.searchsorted(owners, 0))  # rows of no key have -1
        owners, times_ms = owners[known:], times_ms[known:]
        return cls(keys, owners, created_ms[known:], SortedRows(owners, times_ms), places[known:])

    def current(self, owners: Int64s, until_ms: Int64s, asked_ms: Int64s) -> Int64s:
        """Place in the table of each owner's latest version at or before `until_ms` that `asked_ms` knows of; else -1.

        Of several at the same time the one created last; one created after `asked_ms` is invisible. [n] each, owner -1
        has none.
        """
        found = np.full(len(owners), -1, dtype=np.int64)
        known = np.flatnonzero(owners >= 0)
        version = self.rows.first_at_or_after(owners[known], until_ms[known] + 1) - 1
        version = latest_visible(self.created_ms, version, asked_ms[known])
        is_own = version >= 0
        is_own[is_own] = self.owners[version[is_own]] == owners[known][is_own]
        found[known[is_own]] = self.places[version[is_own]]
        return found


@dataclass(frozen=True)
class BoundaryRows:
    """A group's values at its boundaries, as they are stored, to be asked like a `Timeline`."""

    group: FeatureGroup
    versions: Versions
    last_events_ms: Int64s
    columns: list[pa.Array]

    @classmethod
    def of(cls, group: FeatureGroup, entity: str, table: pa.Table) -> "BoundaryRows":
        """From rows of `group.row_schema(entity)`, all versions of them; columns of other features may be missing.

        Raises:
            LogError: a column is missing, or a time is null.
        """
        names = [feature.name for feature in group.features]
        require_columns(table, [entity, EVENT_TIME, CREATED, LAST_EVENT, *names], f"the stored rows of {group.name}")
        versions = Versions.of(table, entity, EVENT_TIME, CREATED)
        last_events_ms = milliseconds(table[LAST_EVENT], LAST_EVENT)
        return cls(group, versions, last_events_ms, [flat(table[name]) for name in names])

    @property
    def entities(self) -> pa.Array:
        """The entities that have rows."""
        return self.versions.keys

    def values_of(self, owners: Int64s, asked_ms: Int64s) -> pa.Table:
        """Features and age as a service asked at these instants would have given them; owner -1 is unknown; [n]."""
        until_ms = valued_at_ms(asked_ms, self.group.cadence, self.group.delay)
        place = self.versions.current(owners, until_ms, asked_ms)
        return answers(self.group, place, asked_ms, self.last_events_ms, self.columns)


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
    right_time: str = EVENT_TIME,
    created: str = CREATED,
    last_event: str = LAST_EVENT,
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
    versions = Versions.of(right, key, right_time, created)
    rows = np.flatnonzero(np.asarray(flat(left[left_time]).is_valid()))
    asked_ms = milliseconds(left[left_time].take(pa.array(rows)))
    owners = codes_in(left[key].take(pa.array(rows)), versions.keys)
    current = versions.current(owners, valued_at_ms(asked_ms, cadence, delay_ms), asked_ms)
    seen = current >= 0
    rows, asked_ms, current = rows[seen], asked_ms[seen], current[seen]
    is_fresh = asked_ms - milliseconds(right[last_event])[current] <= ttl_ms
    place = np.full(left.num_rows, -1, dtype=np.int64)
    place[rows[is_fresh]] = current[is_fresh]
    for name in columns:
        left = left.append_column(name, take(flat(right[name]), place))
    return left


def _is_sorted(owners: Int64s, times_ms: Int64s, created_ms: Int64s) -> bool:
    """Whether rows are in (owner, time, created) order."""
    later_owner, same_owner = owners[1:] > owners[:-1], owners[1:] == owners[:-1]
    later_time, same_time = times_ms[1:] > times_ms[:-1], times_ms[1:] == times_ms[:-1]
    in_order = later_owner | (same_owner & (later_time | (same_time & (created_ms[1:] >= created_ms[:-1]))))
    return bool(in_order.all())


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
