"""The rows of silver that logs are made of, and the logs as they are now: which rows came, which are gone.

Sources whose rows are brought together and bound in the same way, for the same purpose, share a shelf. A new row can
change the log only of its own unit (a playback, a session), or, where a source reaches back in time, of its own person
(`features.source`). So these rows are taken from the shelf, the log is made of them and the new ones by the source's
own pure function, and compared with what it was. Nearly always rows are only added; an event that came out of order
changes later rows too.

A shelf keeps what may still matter: rows since `since_ms`, and older ones of units that go on. What is older than that
belongs to the batch: a new event from before is counted as too late, and `reel features` takes it in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.columns import milliseconds
from features.purposes import Purpose
from features.revision import Flags, differences
from features.source import EVENT_ID, EVENT_NAME, EVENT_TIME, FROM, Source
from features.units import Hashes, context_ms, hashes, is_among, units
from pipelines.stream.segments import Segments

ORDER = ("topic", "partition", "offset")
"""Beside new rows: of two of the same event id and time, which came first."""


@dataclass(frozen=True)
class ShelfName:
    """What sources must have in common to share a shelf."""

    together: str
    bound_by: tuple[str, ...]
    reach_ms: int
    purpose: Purpose  # that each of its rows may be used for

    @classmethod
    def of(cls, source: Source, purpose: Purpose) -> "ShelfName":
        """The shelf that a source's rows lie on."""
        return cls(source.together, source.bound_by, source.reach_ms, purpose)


@dataclass(frozen=True)
class LogChange:
    """What became of one source's log."""

    added: pa.Table
    gone: pa.Table


@dataclass
class Shelf:
    """The rows and logs of some sources, for some of the people. `schemas` are of silver's tables."""

    name: ShelfName
    sources: tuple[Source, ...]
    schemas: Mapping[str, pa.Schema]
    since_ms: int
    rows: dict[str, Segments] = field(init=False)
    logs: dict[str, Segments] = field(init=False)
    too_late: int = 0
    duplicates: int = 0
    _unsaved: dict[str, list[pa.Table] | None] = field(init=False)  # None: all rows

    def __post_init__(self) -> None:
        self.rows = {name: Segments(self.schema(name)) for name in self.tables}
        self.logs = {source.name: Segments(source.schema) for source in self.sources if source.make is not None}
        self._unsaved = dict.fromkeys(self.tables)

    @property
    def is_told_of_titles(self) -> bool:
        """Whether its logs say what the catalogue says."""
        return any(source.shared for source in self.sources)

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """The columns of each table that some source reads."""
        read: dict[str, dict[str, None]] = {}
        for source in self.sources:
            for name, columns in source.reads.items():
                read.setdefault(name, {}).update(dict.fromkeys((*columns, EVENT_NAME)))
        return {name: tuple(columns) for name, columns in read.items()}

    def schema(self, table: str) -> pa.Schema:
        """Of the rows of a table that lie here."""
        return pa.schema([self.schemas[table].field(name) for name in self.tables[table]])

    def wanted(self, table: str, rows: pa.Table) -> pa.Table:
        """Those of some rows, with the columns of `ORDER`, that a source here is made of, and no other column."""
        events = pa.array(sorted({name for source in self.sources for name in source.events}))
        rows = rows.filter(pc.is_in(rows[EVENT_NAME], value_set=events))
        return rows.select([*self.schema(table).names, *ORDER])

    def keys_with(self, column: str, values: pa.Array) -> Hashes:
        """The keys of all rows that have one of some values in a column."""
        found = [np.empty(0, np.uint64)]
        for name, segments in self.rows.items() if len(values) else ():
            rows = segments.rows
            found.append(self.keys_of(name, rows.filter(pc.is_in(rows[column], value_set=values))))
        return np.unique(np.concatenate(found))

    def unsaved(self, table: str, *, whole: bool) -> tuple[pa.Table, bool]:
        """The rows that came since this was last asked, or all, and whether it is all."""
        some = self._unsaved[table]
        self._unsaved[table] = []
        if whole or some is None:
            return self.rows[table].rows, True
        return pa.concat_tables([self.schema(table).empty_table(), *some]), False

    def fill(self, kept: Mapping[str, pa.Table], shared: Mapping[str, pa.Table]) -> dict[str, LogChange]:
        """Put rows there that are known to be good, each event once, and make the logs since `since_ms`."""
        for name, rows in kept.items():
            self.rows[name].append(self.keys_of(name, rows), rows)
        return self._remade({name: segments.rows for name, segments in self.rows.items()}, shared, None)

    def add(self, new: Mapping[str, pa.Table], shared: Mapping[str, pa.Table], remake: Hashes) -> dict[str, LogChange]:
        """Take new rows in, which have the columns of `ORDER` too; what became of each source's log.

        Logs are also made anew of what is kept under the keys of `remake`.
        """
        fresh = {name: self._first_of_each(self._in_time(rows)) for name, rows in new.items()}
        keys = {name: self.keys_of(name, rows) for name, rows in fresh.items()}
        touched = np.unique(np.concatenate([remake, *keys.values()]))
        together = {}
        for name, segments in self.rows.items():
            # Without a log nothing is asked of rows that are known but which events they are.
            _, known = segments.take(touched, columns=None if self.logs else [EVENT_ID])
            if name in fresh:
                is_new = ~np.asarray(pc.is_in(fresh[name][EVENT_ID], value_set=known[EVENT_ID].combine_chunks()))
                self.duplicates += len(is_new) - int(is_new.sum())
                rows = fresh[name].filter(pa.array(is_new)).drop_columns(list(ORDER))
                segments.append(keys[name][is_new], rows)
                if (some := self._unsaved[name]) is not None:
                    some.append(rows)
                known = pa.concat_tables([known, rows]) if self.logs else known
            together[name] = known
        return self._remade(together, shared, touched)

    def forget(self, is_theirs: "Theirs") -> dict[str, LogChange]:
        """Forget the rows of some people, and what logs were made of them."""
        ids: list[pa.ChunkedArray] = []
        for segments in self.rows.values():
            rows = segments.rows
            ids.append(rows[EVENT_ID].filter(pa.array(is_theirs(rows))))
            segments.keep(lambda _, rows: ~is_theirs(rows))
        self._unsaved = dict.fromkeys(self.tables)
        gone_ids = pa.concat_arrays([chunk for column in ids for chunk in column.chunks] or [pa.array([], pa.string())])
        changes = {}
        for source in self._logged:
            log = self.logs[source.name]
            gone = log.rows.filter(pc.is_in(_of_event(log.rows[EVENT_ID]), value_set=gone_ids))
            log.keep(
                lambda _, rows: ~np.asarray(pc.is_in(_of_event(rows[EVENT_ID]), value_set=gone_ids), dtype=np.bool_)
            )
            changes[source.name] = LogChange(source.schema.empty_table(), gone)
        return changes

    def advance(self, since_ms: int) -> None:
        """Let go of what no longer matters once everything before `since_ms` is the batch's."""
        self.since_ms = since_ms
        self._unsaved = dict.fromkeys(self.tables)
        for name, segments in self.rows.items():
            rows = segments.rows
            times_ms = milliseconds(rows[EVENT_TIME])
            going_on = np.unique(self.keys_of(name, rows)[times_ms >= self._context_ms])
            segments.keep(lambda keys, rows, kept=going_on: is_among(keys, kept))  # type: ignore[misc]
        for log in self.logs.values():
            log.keep(lambda _, rows: milliseconds(rows[EVENT_TIME]) >= since_ms)

    def keys_of(self, table: str, rows: pa.Table) -> Hashes:
        """By what each row changes others: its unit; its person, where the sources reach back in time; or itself."""
        if self.name.reach_ms:
            return hashes(rows[self.name.together])
        bound_by = [name for name in self.name.bound_by if name in self.tables[table]]
        if not bound_by:
            return hashes(rows[EVENT_ID])
        return units(rows, hashes(rows[self.name.together]), bound_by)

    @property
    def _logged(self) -> list[Source]:
        return [source for source in self.sources if source.name in self.logs]

    @property
    def _context_ms(self) -> int:
        return self.since_ms - context_ms(self.name.reach_ms)

    def _in_time(self, rows: pa.Table) -> pa.Table:
        is_in_time = milliseconds(rows[EVENT_TIME]) >= self.since_ms
        self.too_late += len(is_in_time) - int(is_in_time.sum())
        return rows.filter(pa.array(is_in_time))

    def _first_of_each(self, rows: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return rows
        order = pl.DataFrame(rows.select([EVENT_ID, EVENT_TIME, *ORDER])).with_row_index("row")
        firsts = order.sort(EVENT_TIME, *ORDER).unique(EVENT_ID, keep="first")["row"].sort().to_numpy()
        self.duplicates += rows.num_rows - len(firsts)
        return rows.take(pa.array(firsts)) if len(firsts) < rows.num_rows else rows

    def _remade(
        self, together: Mapping[str, pa.Table], shared: Mapping[str, pa.Table], touched: Hashes | None
    ) -> dict[str, LogChange]:
        """The logs of some rows, all of the units `touched` (None: everything), in the place of what they were."""
        if not self.logs:
            return {}
        changes = {}
        key_of_event = self._key_of_event(together)
        for source in self._logged:
            tables = {name: together[name] for name in source.reads} | {name: shared[name] for name in source.shared}
            made = source.log(tables) if any(table.num_rows for table in together.values()) else None
            made = source.schema.empty_table() if made is None else made
            made = made.filter(pa.array(milliseconds(made[EVENT_TIME]) >= self.since_ms)).combine_chunks()
            log = self.logs[source.name]
            before = source.schema.empty_table() if touched is None else log.take(touched)[1]
            gone, come = differences(EVENT_ID, before, made) if before.num_rows else ((), np.arange(made.num_rows))
            added, lost = made.take(pa.array(come, pa.int64())), before.take(pa.array(gone, pa.int64()))
            if lost.num_rows:
                ids = lost[EVENT_ID].combine_chunks()
                log.keep(
                    lambda _, rows, ids=ids: ~np.asarray(pc.is_in(rows[EVENT_ID], value_set=ids), dtype=np.bool_)  # type: ignore[misc]
                )
            log.append(key_of_event(added[EVENT_ID]), added)
            changes[source.name] = LogChange(added, lost)
        return changes

    def _key_of_event(self, together: Mapping[str, pa.Table]) -> "_KeyOfEvent":
        ids = [table[EVENT_ID] for table in together.values()]
        keys = [self.keys_of(name, table) for name, table in together.items()]
        return _KeyOfEvent(
            pa.concat_arrays([pa.array([], pa.string()), *(chunk for one in ids for chunk in one.chunks)]),
            np.concatenate([np.empty(0, np.uint64), *keys]),
        )


@dataclass(frozen=True)
class _KeyOfEvent:
    """The key of the row that a log's row became known with."""

    ids: pa.Array
    keys: Hashes

    def __call__(self, event_ids: pa.ChunkedArray) -> Hashes:
        return self.keys[np.asarray(pc.index_in(_of_event(event_ids), value_set=self.ids), dtype=np.int64)]


def _of_event(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids of the events that rows of a log became known with; another row of one has `FROM` after it."""
    return pc.if_else(pc.ends_with(ids, FROM), pc.utf8_slice_codeunits(ids, 0, -len(FROM)), ids)


@dataclass(frozen=True)
class Theirs:
    """Which rows are of some people, by pseudonym."""

    users: pa.Array
    profiles: pa.Array

    def __call__(self, rows: pa.Table) -> Flags:
        """Of each row, [n]."""
        found = np.zeros(rows.num_rows, dtype=np.bool_)
        for name, whose in (("user_id", self.users), ("profile_id", self.profiles), ("viewer_token", self.profiles)):
            if name in rows.column_names:
                found |= np.asarray(pc.is_in(rows[name], value_set=whose, skip_nulls=True), dtype=np.bool_)
        return found


def shelves(
    purposes: Mapping[Source, Purpose], schemas: Mapping[str, pa.Schema], since_ms: int
) -> dict[ShelfName, Shelf]:
    """Empty shelves for some sources, each with what its rows are used for."""
    by_name: dict[ShelfName, list[Source]] = {}
    for source, purpose in purposes.items():
        by_name.setdefault(ShelfName.of(source, purpose), []).append(source)
    return {name: Shelf(name, tuple(some), schemas, since_ms) for name, some in by_name.items()}
