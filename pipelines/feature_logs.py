"""The logs that features are made of: silver, asked for consent, brought together, and read by each source.

    silver.{domain}     cut by the column that brings rows together (a viewer's token, an account)
    one bucket          all rows of some viewers, of every table that its sources read
    pieces              what is kept of each source's log for these viewers; they stay in Ray's object store

Sources that bring rows together by the same column, for the same answer to consent, share the reading.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyiceberg.table import FileScanTask

from features.columns import milliseconds
from features.crowds import CHILD, CHILD_KNOWN, with_children
from features.decision import DECISION_COLUMNS
from features.distinct import with_compacted_texts, with_plain_texts
from features.errors import DeclarationError
from features.names import nearest
from features.purposes import Purpose
from features.source import EVENT_ID, EVENT_TIME, Source
from pipelines.cluster import regroup
from pipelines.contract.events import Contract
from pipelines.feature_scope import Scope
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.scans import bucket_of, cut_apart, cut_by, file_groups, read_all
from pipelines.packed import packed, unpacked
from pipelines.viewing import KnownPeople, Viewing, excluded_in, noted

# Fewer are made into logs in less time than a task takes to start.
ROWS_WORTH_A_TASK = 50_000
# A task holds some 2 KB of each row of silver while it makes logs of it.
ROWS_PER_LOG = 250_000
# One that splits reads a portion at a time, and holds some 170 B of each row. The more it splits the longer are the
# parts that travel: a part costs a few ms however short it is, and there are as many as splits times logs.
LEAST_ROWS_PER_SPLIT, MOST_ROWS_PER_SPLIT, MOST_SPLITS = 500_000, 2_000_000, 25
ROWS_PER_VALUE = 8  # of a part that travels; where there are fewer, looking for values it does not need is worth it
_TABLE = b"table"


class Keep(Protocol):
    """What is kept of a source's log: pieces that are read one without another, each under a name."""

    def names(self, source: Source) -> Sequence[str]:
        """Of the pieces."""

    def __call__(self, source: Source, log: pa.Table) -> Sequence[object]:
        """One of each name."""


@dataclass
class Logs:
    """What is kept of the logs of some sources, and what they were made from.

    `pieces`: by source and name, one a bucket; references of Ray's to what was `packed`.
    """

    rows: dict[str, int]
    pieces: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    newest_ms: int | None = None


@dataclass(frozen=True)
class Reading:
    """What sources that bring rows together in the same way read, for one purpose."""

    sources: tuple[Source, ...]
    together: str
    viewings: Mapping[str, Viewing]
    snapshots: Mapping[str, int]
    schemas: Mapping[str, pa.Schema]

    @classmethod
    def of(
        cls,
        lakehouse: Lakehouse,
        sources: Sequence[Source],
        purpose: Purpose,
        at_ms: int,
        schemas: Mapping[str, pa.Schema],
        *,
        is_personal: bool,
    ) -> "Reading":
        """Silver as it stands, whose tables have these `schemas`; those that were never filled are read as empty."""
        (together,) = {source.together for source in sources}
        people = KnownPeople.now(lakehouse)
        found = {
            name: Viewing.of(lakehouse, purpose, at_ms, name, is_personal=is_personal, people=people)
            for name in _columns(sources)
        }
        viewings = {name: viewing for name, viewing in found.items() if viewing is not None}
        snapshots = {name: one for viewing in viewings.values() for name, one in viewing.snapshots.items()}
        return cls(tuple(sources), together, viewings, snapshots, schemas)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each table, before any is left out."""
        return {name: viewing.rows for name, viewing in self.viewings.items()}

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of each table that some source reads."""
        return _columns(self.sources)

    def gather(
        self,
        shared: Mapping[str, pa.Table],
        at_least: int,
        keep: Keep,
        scope: Scope | None = None,
    ) -> Logs:
        """Bring the rows together and make every log, or the part of it in `scope`; waits until all are made.

        Of each log what `keep` makes of it is kept. Logs of events for aggregates say which rows are a child's.
        """
        viewings = self.viewings
        if scope is not None:
            viewings = {name: replace(one, files=scope.files_of(name, one.files)) for name, one in viewings.items()}
        rows = sum(viewing.rows for viewing in viewings.values())
        at_once = min(max(rows // MOST_SPLITS, LEAST_ROWS_PER_SPLIT), MOST_ROWS_PER_SPLIT)
        items = [(name, files) for name, viewing in viewings.items() for files in file_groups(viewing.files, at_once)]
        cut = max(min(at_least, 1 + rows // ROWS_WORTH_A_TASK), -(-rows // ROWS_PER_LOG))
        split = _Split(viewings, self.columns, self.together, cut, scope)
        make = _MakeLogs(self.sources, shared, self.schemas, scope, keep)
        made: dict[int, Sequence[Any]] = {}
        logs = Logs(self.rows)
        making = regroup(items, split, make, cut, returns=1 + len(make.names))
        for facts, pieces in making.results_and_kept():
            made[facts.bucket] = pieces
            for why, count in facts.excluded.items():
                logs.excluded[why] = logs.excluded.get(why, 0) + count
            known = [one for one in (facts.newest_ms, logs.newest_ms) if one is not None]
            logs.newest_ms = max(known, default=None)
        for place, name in enumerate(make.names):
            logs.pieces[name] = [made[bucket][place] for bucket in sorted(made)]
        return logs


@dataclass(frozen=True)
class KeepLog:
    """All of a log is kept."""

    def names(self, source: Source) -> Sequence[str]:
        """One."""
        return (source.name,)

    def __call__(self, source: Source, log: pa.Table) -> Sequence[pa.Table]:
        """It."""
        return (with_encoded_texts(log),)


@dataclass(frozen=True)
class CutLog:
    """A log that was kept, cut by the bucket of an entity's key; rows without one are left out."""

    entity: str
    buckets: int

    def __call__(self, kept: bytes) -> Iterator[pa.Table]:
        """One table a bucket."""
        return cut_by_entity(unpacked(kept), self.entity, self.buckets)


def cut_by_entity(rows: pa.Table, entity: str, buckets: int) -> Iterator[pa.Table]:
    """Rows cut by the bucket of their entity, one table a bucket, texts spelled out; those without one are left out."""
    return map(with_plain_texts, cut_apart(rows, bucket_of(rows[entity], buckets), buckets))


def shared_tables(lakehouse: Lakehouse, sources: Sequence[Source]) -> dict[str, pa.Table]:
    """What says the same to everybody, whole."""
    names = dict.fromkeys(name for source in sources for name in source.shared)
    return {name: read_all(lakehouse.existing(name), _shared_schema(name)) for name in names}


def silver_schemas(contract: Contract, event_partition: str) -> dict[str, pa.Schema]:
    """The columns of every table of silver that holds a domain's events."""
    domains = sorted({event.domain for event in contract.events})
    specs = [tables.silver_domain(contract, domain, event_partition) for domain in domains]
    return {spec.name: spec.schema for spec in specs}


def check_sources(sources: Sequence[Source], contract: Contract, schemas: Mapping[str, pa.Schema]) -> None:
    """Raise `DeclarationError` where a source is made of an event, a table or a column that there is not."""
    events = {event.name for event in contract.events}
    for source in sources:
        for name in source.events:
            if name not in events:
                raise DeclarationError(
                    f"source {source.name}: unknown event {name}; the nearest is {nearest(name, sorted(events))}"
                )
        for table, columns in source.reads.items():
            if table not in schemas:
                raise DeclarationError(
                    f"source {source.name}: unknown table {table}; the nearest is {nearest(table, schemas)}"
                )
            _check_columns(source, table, columns, schemas[table])
        for table, columns in source.shared.items():
            _check_columns(source, table, columns, _shared_schema(table))


def _check_columns(source: Source, table: str, columns: Sequence[str], schema: pa.Schema) -> None:
    for column in columns:
        if column not in schema.names:
            raise DeclarationError(
                f"source {source.name}: {table} has no column {column}; the nearest is {nearest(column, schema.names)}"
            )


def _shared_schema(name: str) -> pa.Schema:
    known = {"silver.titles": tables.TITLES}
    if name not in known:
        raise DeclarationError(f"{name} is no table that says the same to everybody; there is {', '.join(known)}")
    return known[name]


def _columns(sources: Sequence[Source]) -> dict[str, tuple[str, ...]]:
    """The columns of each table that some source reads."""
    read: dict[str, dict[str, None]] = {}
    for source in sources:
        for table, columns in source.reads.items():
            read.setdefault(table, {}).update(dict.fromkeys(columns))
    return {table: tuple(columns) for table, columns in read.items()}


@dataclass(frozen=True)
class _Split:
    """Admitted rows of some files, cut by the bucket that brings them together; those of nobody share the first."""

    viewings: Mapping[str, Viewing]
    columns: Mapping[str, tuple[str, ...]]
    together: str
    buckets: int
    scope: Scope | None

    def __call__(self, item: tuple[str, list[FileScanTask]]) -> list[pa.Table]:
        name, files = item
        columns, viewing = self.columns[name], self.viewings[name]
        if self.scope is not None:
            files = self.scope.with_rows(viewing.table, name, files, self.together)
        beside = () if viewing.is_personal else (CHILD, CHILD_KNOWN)
        split: list[list[pa.Table]] = [[] for _ in range(self.buckets)]
        left_out: Counter[str] = Counter()
        for rows, excluded in viewing.allowed_portions(files, tuple(dict.fromkeys((*columns, *DECISION_COLUMNS)))):
            left_out.update(excluded)
            if self.scope is not None:
                rows = rows.filter(pa.array(self.scope.is_read(rows, self.together)))
            bucket = np.maximum(bucket_of(rows[self.together], self.buckets), 0)
            parts = cut_by(rows.select([*columns, *beside]).unify_dictionaries(), bucket, self.buckets)
            for some, part in zip(split, parts, strict=True):
                some.append(with_compacted_texts(part, most_values=part.num_rows // ROWS_PER_VALUE))
        whole = [_whole(some) for some in split]
        return [_named(noted(part, left_out if place == 0 else {}), name) for place, part in enumerate(whole)]


@dataclass(frozen=True)
class _Facts:
    """Of a bucket that was gathered: what was left out, by reason, and when the newest row was known."""

    bucket: int
    excluded: dict[str, int]
    newest_ms: int | None


@dataclass(frozen=True)
class _MakeLogs:
    """The log of each source, from the rows of one bucket: one after the other, so that only one is there at a time."""

    sources: tuple[Source, ...]
    shared: Mapping[str, pa.Table]
    schemas: Mapping[str, pa.Schema]
    scope: Scope | None
    keep: Keep

    @property
    def names(self) -> list[tuple[str, str]]:
        """Of the pieces that are kept: the source, and its own name."""
        return [(source.name, name) for source in self.sources for name in self.keep.names(source)]

    def __call__(self, bucket: int, parts: Sequence[pa.Table]) -> tuple[_Facts, *tuple[bytes, ...]]:
        by_table: dict[str, list[pa.Table]] = {}
        for part in parts:
            plain = with_plain_texts(part.replace_schema_metadata(None))
            by_table.setdefault(part.schema.metadata[_TABLE].decode(), []).append(plain)
        found = {name: pa.concat_tables(some) for name, some in by_table.items()}
        kept, newest_ms = list[bytes](), []
        for source in self.sources:
            log = self._log(source, found)
            if log.num_rows:
                newest_ms.append(int(milliseconds(log[EVENT_TIME]).max()))
            kept += map(packed, self.keep(source, log))
        return _Facts(bucket, excluded_in(parts), max(newest_ms, default=None)), *kept

    def _log(self, source: Source, found: Mapping[str, pa.Table]) -> pa.Table:
        log = source.log(self._tables_of(source, found))
        parts = [found[name] for name in source.reads if name in found and CHILD in found[name].column_names]
        log = with_children(log, parts) if parts else log
        return log if self.scope is None else log.filter(pa.array(self.scope.is_made(log)))

    def _tables_of(self, source: Source, found: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        rows = {name: found[name] if name in found else self.schemas[name].empty_table() for name in source.reads}
        return rows | dict(self.shared)


def _whole(some: list[pa.Table]) -> pa.Table:
    """One table in one piece, which travels at less cost; `some` is emptied."""
    whole = pa.concat_tables(some).unify_dictionaries().combine_chunks()
    some.clear()
    return whole


def _named(part: pa.Table, name: str) -> pa.Table:
    return part.replace_schema_metadata({**(part.schema.metadata or {}), _TABLE: name.encode()})


def with_encoded_texts(rows: pa.Table) -> pa.Table:
    """The rows with few bytes for texts that many of them share: they wait in Ray's object store."""
    for place, column in enumerate(rows.schema):
        if column.type == pa.string() and column.name != EVENT_ID:
            rows = rows.set_column(place, column.name, rows[column.name].dictionary_encode())
    return rows
