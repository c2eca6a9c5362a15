"""What one actor does: its partitions of Kafka, its people, its entities.

An event passes three owners, each found by a hash, in one batch:

    partitions   the actor that reads them takes messages through the door                        (`admit`)
    people       the actor of a viewer, or account, makes the logs of whatever is bound together  (`log`)
    entities     the actor of a key adds its tiles up and writes its value                        (`publish`)

The actor of a viewer also says of their playbacks, when these are over, what came of them (`finish`).

An event that comes out of order changes rows that were counted already. Values of people are made anew at once; those
of many people together (a delivery network in a region) are put right with the next checkpoint, or it would be done
all the time.

So it does not matter how producers key their messages, and more actors own fewer of each. Everything an actor keeps
follows from the rows on its shelves: they alone are in a checkpoint.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pyarrow as pa

from features.columns import flat, milliseconds
from features.entities import entity as entity_of
from features.finished_playbacks import FINISHED_PLAYBACKS
from features.groups import GROUPS
from features.purposes import Purpose
from features.revision import is_in
from features.source import EVENT_ID, EVENT_TIME
from features.stretches import NEVER_MS
from features.units import Hashes, hashes
from features.windows import DAY_MS, floor_ms
from pipelines.feature_tables import Target
from pipelines.kafka.log import EventLog
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Offsets
from pipelines.lakehouse import tables
from pipelines.lakehouse.scans import cut_by
from pipelines.stream.admitting import Admitting
from pipelines.stream.affected import Affected, Changed
from pipelines.stream.files import RowFile, write_rows
from pipelines.stream.finishing import PLAYBACK, Finishing
from pipelines.stream.known import PURPOSE, TITLES, Known, Tables
from pipelines.stream.scores import session_scores
from pipelines.stream.shelves import LogChange, Shelf, ShelfName, Theirs, shelves
from pipelines.stream.spans import MessageSpans, Traced
from pipelines.stream.tails import Tail, open_tail
from pipelines.stream.targets import SHELVES, TARGETS, USED_FOR
from pipelines.stream.tile_books import LogPart, TileBook
from serving.online_store import open_online_store

Routed = dict[ShelfName, dict[str, pa.Table]]
LogRows = dict[tuple[str, str], pa.Table]  # of a source's log, for the keys of an entity
Part = TypeVar("Part")
Rows = Callable[[ShelfName, str], pa.Table]
_MOST_VALUES = 10_000
"""Of all groups together in memory; as many are written at once, and made durable once."""
_MOST_FILES = 40
"""Of one shelf's table in a checkpoint; then they are written anew as one."""


@dataclass(frozen=True)
class Setup:
    """What every actor is made from."""

    log: EventLog
    known: Known
    admitting: Admitting
    since_ms: int
    told_ms: int  # scores of playbacks that were over by then have been told
    store_url: str
    rows: Rows  # of a shelf's table, of everybody
    waiting: Mapping[str, pa.Table]  # rows that wait for their profile, by event
    traced: Traced | None = None


@dataclass(frozen=True)
class Fetched:
    """How far an actor has read, and how many messages came."""

    positions: Offsets
    messages: int


@dataclass(frozen=True)
class Published:
    """What a batch has come to, at one actor; `newest_ms` by topic and partition, counts since the start.

    `waits_ms`: of when the first row is that is in no value yet, else never.
    """

    values: int
    counts: dict[str, int]
    newest_ms: dict[str, dict[int, int]]
    behind: set[tuple[str, int]]
    waits_ms: int


@dataclass(frozen=True)
class Finished:
    """How many playbacks are over that were not told yet, and what is to be told; of some there is nothing to tell."""

    playbacks: int
    scores: pa.Table


class Worker:
    """One of `actors`, the one at `place`. Its methods are called in the order in which they stand here."""

    def __init__(self, place: int, actors: int, setup: Setup, positions: Mapping[str, Mapping[int, int]]) -> None:
        self._place, self._actors, self._setup = place, actors, setup
        self._known, self._admitting, self._positions = setup.known, setup.admitting, positions
        self._shelves = shelves(USED_FOR, setup.admitting.schemas, setup.since_ms)
        self._books = {target: TileBook(target, setup.since_ms) for target in TARGETS}
        self._fetched: list[Messages] = []
        self._theirs: dict[Purpose, Theirs] | None = None
        self._titles: pa.Array = pa.array([], pa.string())
        self._owed = Affected()
        self._files: dict[tuple[int, str], list[RowFile]] = {}

    def begin(self) -> int:
        """Take up the rows there are, and make of them what follows from them; the id of this process."""
        self._tail: Tail = open_tail(self._setup.log, self._positions)
        self._store = open_online_store(self._setup.store_url)
        self._spans = MessageSpans(self._setup.traced)
        if self._place == 0:
            events = {event.fullname: event for event in self._known.contract.events}
            for fullname, held in self._setup.waiting.items():
                self._admitting.wait_for(events[fullname], held)
        filled: list[dict[str, LogChange]] = []
        for name, shelf in self._shelves.items():
            rows = {}
            for table in shelf.tables:
                every = self._setup.rows(name, table)
                mine = self._owner(hashes(every[name.together])) == self._place
                rows[table] = every.filter(pa.array(mine)).select(shelf.schema(table).names).cast(shelf.schema(table))
            filled.append(shelf.fill(rows, self._shared))
        self._first = filled
        finished = self._shelves[SHELVES[FINISHED_PLAYBACKS.name]]
        self._finishing = Finishing(finished, self._store, self._setup.told_ms, self._mine)
        return os.getpid()

    def first_logs(self) -> "LogRows | list[LogRows]":
        """Of the rows taken up, the logs' rows by the actor whose keys they are of."""
        changes = {name: change for filled in self._first for name, change in filled.items()}
        del self._first
        return _returned(self._cut({name: change.added for name, change in changes.items()}))

    def fill(self, *parts: LogRows) -> None:
        """Make tiles of the first logs."""
        for target, book in self._books.items():
            book.fill(_joined(parts, target))

    def fetch(self, most: int, wait_s: float) -> Fetched:
        """Read what has come."""
        self._fetched = self._tail.fetch(most, wait_s)
        self._spans.begin(self._fetched)
        return Fetched(self._tail.positions, sum(map(len, self._fetched)))

    def admit(self, news: Tables, now_ms: int) -> "Routed | list[Routed]":
        """Take what was read through the door, as people are known now; by the actor whose people they are of."""
        if news:
            before = self._known.tables[TITLES][EVENT_ID]
            self._theirs = self._known.hear(news, now_ms)
            if TITLES in news:
                is_new = ~is_in(news[TITLES][EVENT_ID], flat(before))
                self._titles = flat(news[TITLES]["content_id"]).filter(pa.array(is_new)).unique()
        rows = self._admitting(self._fetched, self._known, now_ms)
        self._fetched = []
        routed: list[Routed] = [{} for _ in range(self._actors)]
        for name, shelf in self._shelves.items():
            for table in shelf.tables:
                found = rows.get(name.purpose, {}).get(table)
                if found is not None and found.num_rows:
                    wanted = shelf.wanted(table, found)
                    for into, part in zip(routed, self._by_owner(wanted, name.together), strict=True):
                        into.setdefault(name, {})[table] = part
        self._spans.note("admitted")
        return _returned(routed)

    def log(self, *routed: Routed) -> tuple[Affected, *tuple[LogRows, ...]]:
        """Put rows on the shelves; what the logs have gained, by the actor whose keys they are of, and who lost."""
        affected, added = Affected(), dict[str, list[pa.Table]]()
        if self._theirs is not None:
            affected.forgotten = self._forgotten(self._theirs[PURPOSE])
            gone = [shelf.forget(self._theirs[name.purpose]) for name, shelf in self._shelves.items()]
            self._note(affected, gone, added)
            self._finishing.forget(self._theirs[SHELVES[FINISHED_PLAYBACKS.name].purpose])
        changes = []
        for name, shelf in self._shelves.items():
            parts = [one[name] for one in routed if name in one]
            new = {table: pa.concat_tables([one[table] for one in parts if table in one]) for table in shelf.tables
                   if any(table in one for one in parts)}  # fmt: skip
            remake = shelf.keys_with("content_id", self._titles) if shelf.is_told_of_titles else np.empty(0, np.uint64)
            if new or len(remake):
                changes.append(shelf.add(new, self._shared, remake))
            if shelf is self._finishing.shelf and new:
                self._finishing.note(new[PLAYBACK])
        self._note(affected, changes, added)
        self._theirs, self._titles = None, pa.array([], pa.string())
        self._owe(affected)
        self._spans.note("logged")
        return affected, *self._cut({name: pa.concat_tables(some) for name, some in added.items()})

    def owed(self) -> Affected:
        """What is still to be made anew of entities that are no people; from then on it is not owed any more."""
        owed, self._owed = self._owed, Affected()
        return owed

    def left(self, affected: Affected) -> "LogRows | list[LogRows]":
        """All there now is of the logs of whoever lost something, by the actor whose keys they are."""
        found: list[LogRows] = [{} for _ in range(self._actors)]
        for target in TARGETS:
            where = (target.group.source.name, target.entity)
            if where in found[0] or not (where in affected.changed or target.entity in affected.forgotten):
                continue
            log = self._shelves[SHELVES[target.group.source.name]].logs[target.group.source.name].rows
            wanted = is_in(log[target.entity], affected.forgotten.get(target.entity, _NOBODY))
            if (changed := affected.changed.get(where)) is not None:
                is_later = milliseconds(log[EVENT_TIME]) >= floor_ms(changed.since_ms, DAY_MS)
                wanted |= is_later & is_in(log[target.entity], changed.keys)
            for into, part in zip(found, self._by_key(log.filter(pa.array(wanted)), target.entity), strict=True):
                into[where] = part
        return _returned(found)

    def publish(self, affected: Affected, until_ms: int, *logs: LogRows) -> Published:
        """Add tiles up and write values; what the batch has come to. `logs`: what every actor's logs have gained; then,
        if somebody lost something, what is left of theirs. Rows of entities that are no people wait from `until_ms` on.
        """
        added, left = logs[: self._actors], logs[self._actors :]
        forgotten = {name: self._mine(keys) for name, keys in affected.forgotten.items()}
        for group in GROUPS:
            for name in set(group.entities) & set(forgotten):
                self._store.delete_many(group.stored_as(name), forgotten[name].to_pylist())
        values = 0
        made: list[tuple[str, list[tuple[str, bytes]]]] = []
        for target, book in self._books.items():
            where = (target.group.source.name, target.entity)
            changed = affected.changed.get(where, Changed(_NOBODY, 0))
            part = LogPart(
                added=_joined(added, target),
                changed=self._mine(changed.keys),
                changed_since_ms=changed.since_ms,
                left=_joined(left, target),
                forgotten=forgotten.get(target.entity, _NOBODY),
                until_ms=NEVER_MS if target.entity in _PERSONAL else until_ms,
            )
            made.append((target.group.stored_as(target.entity), book.apply(part, self._store)))
            if sum(len(rows) for _, rows in made) >= _MOST_VALUES:
                values += self._store.put_groups(made)
                made.clear()
        values += self._store.put_groups(made)
        self._spans.end()
        since_ms = [at_ms for book in self._books.values() if (at_ms := book.waits_since_ms) is not None]
        waits_ms = min(since_ms, default=NEVER_MS)
        return Published(values, self._counts, self._admitting.newest_ms, self._tail.behind(), waits_ms)

    def process(self, news: Tables, now_ms: int, until_ms: int) -> Published:
        """`admit`, `log`, `left` and `publish` of an only actor: nothing travels."""
        affected, *logs = self.log(cast(Routed, self.admit(news, now_ms)))
        left = [] if affected.is_nobody else [cast(LogRows, self.left(affected))]
        return self.publish(affected, until_ms, *logs, *left)

    def finish(self, until_ms: int) -> Finished:
        """Put online what playbacks came to that are over by `until_ms`; how good those are that were not told yet."""
        versions = self._finishing.finish(until_ms)
        return Finished(versions.num_rows, session_scores(versions, self._known.hasher))

    def save(self, folder: Path, number: int) -> list[RowFile]:
        """Write what came on the shelves since it was last written; the files that hold all of it now."""
        for place, shelf in enumerate(self._shelves.values()):
            for table in shelf.tables:
                known = self._files.setdefault((place, table), [])
                rows, is_all = shelf.unsaved(table, whole=len(known) >= _MOST_FILES)
                if is_all:
                    known.clear()
                if rows.num_rows:
                    file = RowFile(f"{number}-{self._place}-{place}-{table}.arrow", place, table)
                    write_rows(folder / file.name, rows)
                    known.append(file)
        return [file for some in self._files.values() for file in some]

    def waiting(self) -> dict[str, pa.Table]:
        """Rows that wait for their profile, by event."""
        return self._admitting.waiting

    def advance(self, since_ms: int) -> None:
        """Leave everything before `since_ms` to what is stored."""
        for shelf in self._shelves.values():
            shelf.advance(since_ms)
        self._finishing.advance()
        for book in self._books.values():
            book.advance(since_ms)

    def close(self) -> None:
        """Let go of Kafka, of the store, and of whoever collects spans."""
        self._tail.close()
        self._store.close()
        self._spans.close()

    @property
    def _shared(self) -> dict[str, pa.Table]:
        return {TITLES: self._known.tables[TITLES].select(tables.TITLES.names)}

    @property
    def _counts(self) -> dict[str, int]:
        on_shelves = {
            "too late, left to `reel features`": sum(shelf.too_late for shelf in self._of_features),
            "duplicate event ids": sum(shelf.duplicates for shelf in self._of_features),
            "waiting for their profile": sum(rows.num_rows for rows in self._admitting.waiting.values()),
        }
        return {**self._admitting.counts, **{name: n for name, n in on_shelves.items() if n}}

    @property
    def _of_features(self) -> list[Shelf]:
        return [shelf for name, shelf in self._shelves.items() if name.purpose is PURPOSE]

    def _note(
        self, affected: Affected, changes: Sequence[dict[str, LogChange]], added: dict[str, list[pa.Table]]
    ) -> None:
        lost = Affected()
        for source, what in (one for change in changes for one in change.items()):
            if what.added.num_rows:
                added.setdefault(source, []).append(what.added)
            if not what.gone.num_rows:
                continue
            since_ms = int(milliseconds(what.gone[EVENT_TIME]).min())
            for target in TARGETS:
                if target.group.source.name == source:
                    keys = flat(what.gone[target.entity]).drop_null().unique()
                    lost.changed[source, target.entity] = Changed(keys, since_ms)
        affected.changed = Affected.joined([affected, lost]).changed

    def _owe(self, affected: Affected) -> None:
        """Put off what would be made of many people's rows: it is done with the next checkpoint, for all at once."""
        many = {where: affected.changed.pop(where) for where in list(affected.changed) if where[1] not in _PERSONAL}
        self._owed = Affected.joined([self._owed, Affected(many)])

    def _forgotten(self, theirs: Theirs) -> dict[str, pa.Array]:
        """The keys of everything personal that rows of some people lead to."""
        found: dict[str, list[pa.Array]] = {"user_id": [theirs.users], "profile_id": [theirs.profiles]}
        profiles = self._known.registries.profiles
        owned = is_in(profiles.owners_of(profiles.people), theirs.users)
        found["profile_id"].append(profiles.people.filter(pa.array(owned)))
        for shelf in self._of_features:
            for segments in shelf.rows.values():
                rows = segments.rows
                rows = rows.filter(pa.array(theirs(rows)))
                for name in rows.column_names:
                    if name in _PERSONAL:
                        found.setdefault(name, []).append(flat(rows[name]).drop_null())
        keys = {name: pa.concat_arrays(some).unique() for name, some in found.items()}
        return {name: some for name, some in keys.items() if len(some)}

    def _cut(self, logs: Mapping[str, pa.Table]) -> list[LogRows]:
        found: list[LogRows] = [{} for _ in range(self._actors)]
        for source, entity in dict.fromkeys((target.group.source.name, target.entity) for target in TARGETS):
            if source in logs and logs[source].num_rows:
                for into, part in zip(found, self._by_key(logs[source], entity), strict=True):
                    into[source, entity] = part
        return found

    def _by_key(self, log: pa.Table, entity: str) -> list[pa.Table]:
        return self._by_owner(log.filter(log[entity].is_valid()) if log[entity].null_count else log, entity)

    def _by_owner(self, rows: pa.Table, column: str) -> list[pa.Table]:
        """The rows of each actor: the one that a column's key is of."""
        if self._actors == 1:
            return [rows]
        return cut_by(rows, self._owner(hashes(rows[column])), self._actors)

    def _mine(self, keys: pa.Array) -> pa.Array:
        if self._actors == 1 or not len(keys):
            return keys
        return keys.filter(pa.array(self._owner(hashes(keys)) == self._place))

    def _owner(self, keys: Hashes) -> np.ndarray:
        return (keys % np.uint64(self._actors)).astype(np.int64)


_NOBODY = pa.array([], pa.string())
_PERSONAL = frozenset(target.entity for target in TARGETS if entity_of(target.entity).is_personal)


def _joined(parts: Sequence[LogRows], target: Target) -> pa.Table:
    where = (target.group.source.name, target.entity)
    return pa.concat_tables(
        [target.group.source.schema.empty_table(), *(part[where] for part in parts if where in part)]
    )


def _returned(parts: list[Part]) -> "Part | list[Part]":
    """One value for each actor, as Ray wants them of a method with so many; of a single one itself."""
    return parts if len(parts) > 1 else parts[0]


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000
