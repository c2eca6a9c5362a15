"""Spines: which rows a training set has, before their features and labels are brought to them.

    Every(log, "user_id")            everybody at every step of time, while the log knows them
    PerEvent(log, "profile_id")      each event that meets a condition
    FileRows(path) TableRows(name)   rows that somebody else made: Parquet files, an Iceberg table

What a log generates is known before the row's instant, but for the event that a `PerEvent` row is of.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.columns import encode, flat, milliseconds, timestamps
from features.entities import entity as entity_of
from features.errors import DeclarationError
from features.filters import Where, chosen, column_of
from features.names import nearest
from features.runs import expand, order_by, run_of_row, run_starts
from features.source import EVENT_ID, EVENT_TIME, Source
from features.windows import DAY_MS, HOUR_MS, Int64s

INSTANT = EVENT_TIME
_NEVER_MS = -(1 << 62)


@dataclass(frozen=True)
class Every:
    """A row for each key of a log at every multiple of `step_ms` (UTC), while an event of it is at most so old.

    From an event that meets `ended_by` on there is no row, until one that meets `begun_by`; of both in the same
    millisecond the end holds. Everything is as known before the row's instant.

    `keeps` names texts of the log that a row brings along, each as the newest event before it that has one says;
    `days_known` a column that says how many whole days before the row the key's first event lies.
    """

    source: Source
    entity: str
    step_ms: int = DAY_MS
    seen_within_ms: int = 28 * DAY_MS
    ended_by: Where = None
    begun_by: Where = None
    keeps: tuple[str, ...] = ()
    days_known: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the rows."""
        return (self.entity, INSTANT, *self.keeps, *((self.days_known,) if self.days_known else ()))

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells rows apart."""
        return (self.entity, INSTANT)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the log that are read."""
        flags = [name for name in (column_of(self.ended_by), column_of(self.begun_by)) if name]
        return tuple(dict.fromkeys([self.entity, EVENT_TIME, EVENT_ID, *flags, *self.keeps]))

    def check(self) -> None:
        """Raise `DeclarationError` where there can be no such rows."""
        _check_log(self.source, (self.entity, *self.keeps), self.ended_by, self.begun_by)
        if len(set(self.columns)) < len(self.columns):
            raise DeclarationError(f"spine: two of the columns {', '.join(self.columns)} are called alike; rename one")
        if self.step_ms <= 0 or self.seen_within_ms <= 0:
            raise DeclarationError(
                f"spine: a step of {self.step_ms} ms or a memory of {self.seen_within_ms} ms is none; give lengths"
            )
        if self.begun_by is not None and self.ended_by is None:
            raise DeclarationError("spine: begun_by begins again what ended_by has ended; give that too")

    def rows(self, log: pa.Table, until_ms: int, since_ms: int = _NEVER_MS) -> pa.Table:
        """(key, instant) of the keys of a log in any order, by key and instant: since `since_ms`, before `until_ms`."""
        keys, owners, first, after, log = self._steps(log, until_ms)
        first = np.maximum(first, -(-since_ms // self.step_ms))
        events, steps = expand(first, np.maximum(first, after))
        columns = {
            self.entity: keys.take(pa.array(owners[events])).cast(pa.string()),
            INSTANT: timestamps(steps * self.step_ms),
        }
        starts = run_starts(owners)
        begins = starts[run_of_row(starts, len(owners))]
        for name in self.keeps:
            newest = _newest(np.asarray(flat(log[name]).is_valid()), begins)[events]
            columns[name] = flat(log[name]).take(pa.array(newest, mask=newest < 0))
        if self.days_known:
            known_ms = milliseconds(log[EVENT_TIME], EVENT_TIME)[begins[events]]
            columns[self.days_known] = pa.array((steps * self.step_ms - known_ms) // DAY_MS)
        return pa.table(columns)

    def rows_by_instant(self, log: pa.Table, until_ms: int) -> dict[int, int]:
        """How many rows a log makes, by instant."""
        _, _, first, after, _ = self._steps(log, until_ms)
        made = after > first
        if not made.any():
            return {}
        first, after, base = first[made], after[made], int(first[made].min())
        size = int(after.max()) - base + 1
        counts = np.cumsum(np.bincount(first - base, minlength=size) - np.bincount(after - base, minlength=size))
        return {(base + place) * self.step_ms: int(counts[place]) for place in np.flatnonzero(counts).tolist()}

    def _steps(self, log: pa.Table, until_ms: int) -> tuple[pa.Array, Int64s, Int64s, Int64s, pa.Table]:
        """(keys, whose each event is, steps `first[i]:after[i]` of which it is the last event before, events)."""
        log = log.filter(log[self.entity].is_valid())
        keys, owners = encode(log[self.entity])
        times_ms = milliseconds(log[EVENT_TIME], EVENT_TIME)
        order = order_by(owners, times_ms, flat(log[EVENT_ID]))
        log, owners, times_ms = log.take(pa.array(order)), owners[order], times_ms[order]
        # Instants in (an event, the next one of its key] have the former as their last event before them.
        is_last = np.append(owners[1:] != owners[:-1], True)[: len(owners)]
        next_ms = np.where(is_last, until_ms - 1, np.append(times_ms[1:], 0)[: len(owners)])
        upto_ms = np.minimum(np.minimum(next_ms, times_ms + self.seen_within_ms), until_ms - 1)
        first, after = times_ms // self.step_ms + 1, upto_ms // self.step_ms + 1
        is_over = self._is_over(log, owners, times_ms)
        after[is_over] = first[is_over]
        return keys, owners, first, after, log

    def _is_over(self, log: pa.Table, owners: Int64s, times_ms: Int64s) -> np.ndarray:
        """[events] whether after each event the key has ended and not begun again."""
        if self.ended_by is None:
            return np.zeros(len(owners), dtype=np.bool_)
        starts = run_starts(owners)
        first = starts[run_of_row(starts, len(owners))]
        ended = _newest(chosen(log, self.ended_by), first)
        begun = _newest(chosen(log, self.begun_by), first) if self.begun_by is not None else np.full(len(owners), -1)
        is_later = (begun >= 0) & (times_ms[begun] > times_ms[ended])
        return (ended >= 0) & ~is_later


@dataclass(frozen=True)
class PerEvent:
    """A row for each event of a log that meets the condition, with some of its columns.

    With `lead_ms` the row lies so long before its event: 1 is the last instant at which it was still to be guessed, and
    the event is in the label's horizon. With 0 the event is in neither, as features end before the row's instant.
    """

    source: Source
    entity: str
    where: Where = None
    keeps: tuple[str, ...] = ()
    lead_ms: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the rows."""
        return tuple(dict.fromkeys([self.entity, *self.keeps, INSTANT, EVENT_ID]))

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells rows apart."""
        return (EVENT_ID,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the log that are read."""
        flag = column_of(self.where)
        return tuple(dict.fromkeys([*self.columns, *([flag] if flag else [])]))

    def check(self) -> None:
        """Raise `DeclarationError` where there can be no such rows."""
        _check_log(self.source, (self.entity, *self.keeps), self.where)
        if self.lead_ms < 0:
            raise DeclarationError(f"spine: a lead of {self.lead_ms} ms would put rows after their event; give 0 or 1")

    def rows(self, log: pa.Table, until_ms: int, since_ms: int = _NEVER_MS) -> pa.Table:
        """The chosen events of a log in any order, by key, time and id: of instants in `[since_ms, until_ms)`."""
        log, instants_ms = self._chosen(log, until_ms)
        late = np.flatnonzero(instants_ms >= since_ms)
        log, instants_ms = log.take(pa.array(late)), instants_ms[late]
        _, owners = encode(log[self.entity])
        order = order_by(owners, instants_ms, flat(log[EVENT_ID]))
        taken = log.select(list(self.columns)).take(pa.array(order))
        rows = {name: taken[name].cast(self.source.schema.field(name).type) for name in self.columns}
        return pa.table(rows | {INSTANT: timestamps(instants_ms[order])})

    def rows_by_instant(self, log: pa.Table, until_ms: int) -> dict[int, int]:
        """How many rows a log makes, by the hour of their instants."""
        _, instants_ms = self._chosen(log, until_ms)
        hours, sizes = np.unique(instants_ms // HOUR_MS, return_counts=True)
        return {hour * HOUR_MS: size for hour, size in zip(hours.tolist(), sizes.tolist(), strict=True)}

    def _chosen(self, log: pa.Table, until_ms: int) -> tuple[pa.Table, Int64s]:
        """The events that rows are of, and the instants of these."""
        instants_ms = milliseconds(log[EVENT_TIME], EVENT_TIME) - self.lead_ms
        is_row = chosen(log, self.where) & np.asarray(flat(log[self.entity].is_valid())) & (instants_ms < until_ms)
        return log.filter(pa.array(is_row)), instants_ms[is_row]


@dataclass(frozen=True)
class FileRows:
    """Rows of Parquet files: one, or a folder of them. `identity`: the columns that tell rows apart."""

    path: str
    identity: tuple[str, ...]
    instant: str = INSTANT

    def check(self) -> None:
        """Raise `DeclarationError` where there is nothing to tell rows apart by, or the path depends on the folder."""
        _check_identity(self.identity)
        if not Path(self.path).is_absolute():
            raise DeclarationError(f"spine: {self.path} depends on where one stands; give the whole path")


@dataclass(frozen=True)
class TableRows:
    """Rows of an Iceberg table of the catalog. `identity`: the columns that tell rows apart."""

    table: str
    identity: tuple[str, ...]
    instant: str = INSTANT

    def check(self) -> None:
        """Raise `DeclarationError` where there is nothing to tell rows apart by."""
        _check_identity(self.identity)


Spine = Every | PerEvent | FileRows | TableRows


def _newest(is_chosen: np.ndarray, first: Int64s) -> Int64s:
    """[events] the newest chosen event of the same key up to and with each, by place; -1 where there is none."""
    newest = np.maximum.accumulate(np.where(is_chosen, np.arange(len(is_chosen)), -1), dtype=np.int64)
    return np.where(newest >= first, newest, -1)


def _check_log(source: Source, columns: tuple[str, ...], *conditions: Where) -> None:
    entity = columns[0]
    if entity_of(entity).columns != (entity,):
        raise DeclarationError(f"spine: a log cannot be cut by {entity}, which has several columns; choose another key")
    for name in (*columns, *(column_of(one) for one in conditions)):
        if name is not None and name not in source.schema.names:
            raise DeclarationError(
                f"spine: {source.name} has no column {name}; the nearest is {nearest(name, source.schema.names)}, "
                f"of {', '.join(source.schema.names)}"
            )


def _check_identity(identity: tuple[str, ...]) -> None:
    if not identity:
        raise DeclarationError("spine: by which columns are rows told apart? give identity")
