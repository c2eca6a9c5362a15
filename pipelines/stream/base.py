"""Where the stream begins: at what `reel features` has put into the online store, and at the offsets it had seen.

Every feature table records the snapshots of silver it was built from, every table of silver the snapshot of bronze,
and that one the offsets in Kafka. From there on the stream reads, each table from its own offsets: what the store
holds is counted once, what came after it is not missed. Tables of people are taken as they are now, with the offsets
they have come to; who has decided otherwise since the build is found by comparing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyiceberg.table import Table

from features.columns import milliseconds
from features.decision import DECISION_COLUMNS, decide
from features.distinct import with_plain_texts
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from features.source import EVENT_NAME, EVENT_TIME
from features.units import context_ms, hashes, is_among, units
from features.windows import DAY_MS, floor_ms
from pipelines.contract.events import Contract
from pipelines.errors import ReelError
from pipelines.feature_logs import silver_schemas
from pipelines.feature_tables import Built, declared
from pipelines.kafka.offsets import NO_IDS, Offsets, Progress
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import (
    live_files,
    lower_instant_ms,
    read_all,
    read_files,
    read_snapshot,
    snapshot_of,
    upper_instant_ms,
)
from pipelines.settings import Settings
from pipelines.silver.sources import BRONZE_SNAPSHOT
from pipelines.stream.known import CONSENTS, ERASURES, PROFILES, SCHEMAS, STONES, TITLES, Known, as_stones
from pipelines.stream.shelves import ShelfName
from pipelines.stream.targets import SOURCES, TABLES, TARGETS
from pipelines.stream.waiting import BRONZE, waiting_rows
from serving.online_store import OnlineStore

PEOPLE_TOPIC, CATALOGUE_TOPIC = "user.events", "catalog.changes"
LONGEST_UNIT_MS = 7 * DAY_MS
"""How far back the beginning of a playback, or a session, that goes on is looked for."""
_FOREVER_MS = 1 << 60


class NothingPublishedError(ReelError):
    """The online store does not hold what a stream could go on from."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the stream goes on from what `reel features` puts online, and {why}; run `reel features`")


@dataclass(frozen=True)
class Base:
    """What a stream begins with. `identity` tells one publication from another."""

    identity: str
    tables: dict[str, pa.Table]  # of people and titles, as they were when features were built
    asked_ms: int
    news: dict[str, pa.Table]  # what tables of people have more by now, at the offsets they have come to
    progress: Progress
    firsts: dict[str, Offsets]
    since_ms: int
    newest_ms: int  # of the events that the features were built from
    rows: "SilverRows"
    waiting: dict[str, pa.Table]  # rows that wait for their profile, by event


def identity_of(store: OnlineStore) -> str | None:
    """Which publication of `reel features` the store holds; None while there is none, or one is being made."""
    identity, built_from, is_building = store.get_many("meta", ["identity", "built_from", "is_building"])
    if identity is None or built_from in (None, b"null") or is_building == b"true":
        return None
    assert built_from is not None
    return hashlib.blake2b(identity + built_from, digest_size=16).hexdigest()


def base_of(
    lakehouse: Lakehouse, store: OnlineStore, contract: Contract, hasher: Pseudonymizer, settings: Settings
) -> Base:
    """What there is to go on from. Raises NothingPublishedError, or SnapshotGoneError for what has expired."""
    identity = identity_of(store)
    if identity is None:
        raise NothingPublishedError("it holds nothing whole")
    built = _built(lakehouse, json.loads(store.get_many("meta", ["identity"])[0] or b'""'))
    inputs = built.inputs
    firsts = {name: _offsets(lakehouse, name, inputs.get(name)) for name in (*TABLES, TITLES)}
    wanted = {event.topic for event in contract.events if f"silver.{event.domain}" in TABLES}
    offsets: Offsets = {topic: {} for topic in sorted(wanted)}
    for event in contract.events:
        if event.topic in wanted:
            known = firsts[f"silver.{event.domain}"].offsets.get(event.topic, {})
            for partition, first in known.items():
                offsets[event.topic][partition] = min(first, offsets[event.topic].get(partition, first))
    people = {name: lakehouse.existing(name) for name in (PROFILES, CONSENTS, ERASURES)}
    offsets[PEOPLE_TOPIC] = _least([progress_of(table) for table in people.values() if table is not None])
    offsets[CATALOGUE_TOPIC] = firsts[TITLES].offsets.get(CATALOGUE_TOPIC, {})
    filled = [one for one in firsts.values() if one.cluster_id is not None]
    tables = {name: read_snapshot(lakehouse.existing(name), inputs.get(name), SCHEMAS[name])
              for name in (PROFILES, CONSENTS, TITLES)}  # fmt: skip
    stones, asked = (read_all(lakehouse.existing(name), SCHEMAS[name]) for name in (STONES, ERASURES))
    tables[STONES] = pa.concat_tables([stones, as_stones(asked)])
    since_ms = floor_ms(built.newest_ms, DAY_MS) - DAY_MS
    schemas = silver_schemas(contract, settings.lakehouse.event_partition)
    of_tables = {name: one.offsets for name, one in firsts.items() if name in TABLES}
    news = {name: _more(tables[name], read_all(people[name], SCHEMAS[name])) for name in (PROFILES, CONSENTS)}
    return Base(
        identity=identity,
        tables=tables,
        asked_ms=built.decided_ms,
        news={name: rows for name, rows in news.items() if rows.num_rows},
        progress=Progress(
            filled[0].cluster_id if filled else None,
            {topic: known for topic, known in offsets.items() if known},
            filled[0].topic_ids if filled else NO_IDS,
        ),
        firsts=of_tables,
        since_ms=since_ms,
        newest_ms=built.newest_ms,
        rows=SilverRows.of(lakehouse, inputs, since_ms, schemas, built.decided_ms),
        waiting=waiting_rows(lakehouse, contract, inputs, of_tables, hasher, settings.privacy.undescribed_profile_ms),
    )


@dataclass(frozen=True)
class _SilverFile:
    path: str
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class SilverRows:
    """The rows of silver that still matter, as the features were built from them. Travels to the actors."""

    tables: Mapping[str, TableFiles]
    files: Mapping[str, tuple[_SilverFile, ...]]
    since_ms: int
    schemas: Mapping[str, pa.Schema]
    asked_ms: int
    known: Known | None = None

    @classmethod
    def of(
        cls,
        lakehouse: Lakehouse,
        inputs: Mapping[str, int],
        since_ms: int,
        schemas: Mapping[str, pa.Schema],
        asked_ms: int,
    ) -> "SilverRows":
        """Of the snapshots that features were built from."""
        tables, files = {}, {}
        for name in TABLES:
            table = lakehouse.existing(name)
            if table is None or name not in inputs:
                continue
            tables[name] = TableFiles.of(table)
            files[name] = tuple(_file(table, one) for one in live_files(table, inputs[name]))
        return cls(tables, files, since_ms, schemas, asked_ms)

    def as_known_to(self, known: Known) -> "SilverRows":
        """The rows of whom may be used, as people were known."""
        return replace(self, known=known)

    def __call__(self, shelf: ShelfName, table: str) -> pa.Table:
        """Rows for one shelf: those of the time it keeps, and older ones of units that go on."""
        context = self.since_ms - context_ms(shelf.reach_ms)
        recent = self._allowed(table, shelf.purpose, context, _FOREVER_MS)
        bound_by = [
            name
            for name in shelf.bound_by
            if any(source.bound_by == shelf.bound_by and name in source.reads.get(table, ()) for source in SOURCES)
        ]
        if shelf.reach_ms or not bound_by:
            return recent
        going_on = np.unique(units(recent, hashes(recent[shelf.together]), bound_by))
        older = self._allowed(table, shelf.purpose, context - LONGEST_UNIT_MS, context)
        theirs = units(older, hashes(older[shelf.together]), bound_by)
        return pa.concat_tables([recent, older.filter(pa.array(is_among(theirs, going_on)))])

    def _allowed(self, table: str, purpose: Purpose, start_ms: int, end_ms: int) -> pa.Table:
        """Rows of `[start, end)` that may be used, in the columns that some source reads."""
        columns = dict.fromkeys(
            column
            for source in SOURCES
            for column in (*source.reads.get(table, ()), EVENT_NAME)
            if table in source.reads
        )
        schema = pa.schema([self.schemas[table].field(name) for name in columns])
        paths = [one.path for one in self.files.get(table, ()) if one.first_ms < end_ms and one.last_ms >= start_ms]
        if not paths:
            return schema.empty_table()
        rows = read_files(self.tables[table], paths, tuple(dict.fromkeys((*columns, *DECISION_COLUMNS))))
        times_ms = milliseconds(rows[EVENT_TIME])
        rows = rows.filter(pa.array((times_ms >= start_ms) & (times_ms < end_ms)))
        assert self.known is not None, "who may be used is known by whoever reads"
        decision = decide(rows, purpose, self.known.registries, self.asked_ms)
        return with_plain_texts(rows.filter(pa.array(decision.allowed))).select(schema.names).cast(schema)


def _file(table: Table, file: Any) -> _SilverFile:
    first_ms, last_ms = (bound(table, file, EVENT_TIME) for bound in (lower_instant_ms, upper_instant_ms))
    return _SilverFile(
        file.file_path, -_FOREVER_MS if first_ms is None else first_ms, _FOREVER_MS if last_ms is None else last_ms
    )


def _built(lakehouse: Lakehouse, store: str) -> Built:
    """What all tables of event groups were built from, together."""
    whole: dict[str, int] = {}
    found: list[Built] = []
    for target in TARGETS:
        table = lakehouse.existing(target.name)
        built = Built.of(table) if table is not None else None
        if built is None:
            raise NothingPublishedError(f"{target.name} was not built yet")
        if (built.declared, built.store) != (declared(target.group), store):
            raise NothingPublishedError(f"{target.name} was declared otherwise, or is for another online store")
        for name, snapshot in built.inputs.items():
            if whole.setdefault(name, snapshot) != snapshot:
                raise NothingPublishedError(f"{target.name} was built from another snapshot of {name} than others")
        found.append(built)
    newest_ms, asked_ms = max(one.newest_ms for one in found), min(one.decided_ms for one in found)
    return Built(whole, "", store, newest_ms, asked_ms)


def _offsets(lakehouse: Lakehouse, name: str, snapshot_id: int | None) -> Progress:
    """The offsets up to which a table of silver, as of a snapshot, had its rows."""
    table, bronze = lakehouse.existing(name), lakehouse.existing(BRONZE)
    if table is None or bronze is None or snapshot_id is None:
        return Progress(None, {})
    snapshot_of(table, snapshot_id)
    at = progress_of(table, snapshot_id).get(BRONZE_SNAPSHOT)
    if at is None:
        return Progress(None, {})
    snapshot_of(bronze, at)
    return Progress.from_json(progress_of(bronze, at))


def _more(before: pa.Table, now: pa.Table) -> pa.Table:
    """The rows that were not there before."""
    frames = [pl.DataFrame(one) for one in (now, before)]
    return frames[0].join(frames[1], on=now.column_names, how="anti", nulls_equal=True).to_arrow().cast(now.schema)


def _least(recorded: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Where the first of some tables of people goes on in their topic."""
    least: dict[int, int] = {}
    for partitions in (Progress.from_json(one).offsets.get(PEOPLE_TOPIC, {}) for one in recorded):
        for partition, first in partitions.items():
            least[partition] = min(first, least.get(partition, first))
    return least
