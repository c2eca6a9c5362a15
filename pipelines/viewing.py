"""What people watched and did that may be used: rows of silver, read, asked for consent, and cut by a key.

Features and training sets both start here, so that no row reaches either without the decision of `features.decision`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import FileScanTask, Table

from features.consent import ConsentHistory
from features.crowds import CHILD, CHILD_KNOWN
from features.decision import Registries, decide, decide_for_aggregates
from features.distinct import with_plain_texts
from features.profiles import VIEWER_TOKEN, ProfileRegistry
from features.purposes import Purpose
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import ROWS_PER_ROW_GROUP, TableFiles
from pipelines.lakehouse.scans import (
    by_bucket,
    file_groups,
    read_all,
    read_files,
    read_portions,
    read_snapshot,
    scan_tasks,
)

ROWS_PER_TASK = 250_000
ROWS_AT_ONCE = ROWS_PER_ROW_GROUP
EXCLUDED = "excluded"
PLAYBACK = "silver.playback"
PEOPLE = ("privacy.consents", "privacy.profiles")


@dataclass(frozen=True)
class Viewing:
    """One table of silver as it stands, for one purpose."""

    table: TableFiles
    files: tuple[FileScanTask, ...]
    known: Registries
    purpose: Purpose
    at_ms: int  # consent withdrawn by then excludes a person's earlier rows too
    is_personal: bool  # else for aggregates over many viewers
    snapshots: dict[str, int]

    @classmethod
    def of(
        cls,
        lakehouse: Lakehouse,
        purpose: Purpose,
        at_ms: int,
        name: str = PLAYBACK,
        *,
        is_personal: bool = True,
        people: "KnownPeople | None" = None,
    ) -> "Viewing | None":
        """Everything in the table, of playback unless `name` says else; None when nothing was cleaned yet.

        `people`: what is known of them, where it was read already.
        """
        found = lakehouse.existing(name)
        if found is None or found.current_snapshot() is None:
            return None
        people = KnownPeople.now(lakehouse) if people is None else people
        snapshots = {**_snapshots([found, lakehouse.existing("silver.titles")]), **people.snapshots}
        files = tuple(scan_tasks(found))
        return cls(TableFiles.of(found), files, people.known, purpose, at_ms, is_personal, snapshots)

    @property
    def rows(self) -> int:
        """Rows of silver, before any is left out."""
        return sum(task.file.record_count for task in self.files)

    def file_groups(self) -> list[list[FileScanTask]]:
        """The files, gathered so that each group is one task's work."""
        return list(file_groups(self.files, ROWS_PER_TASK))

    def allowed(
        self, files: Sequence[FileScanTask], columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, dict[str, int]]:
        """Rows of `files` that the purpose admits, and how many were left out for which reason.

        Of those for aggregates, `child` and `child_known_at` say which are a child's: they count in crowds only.
        """
        read = self._read(self.table.arrow_schema.names if columns is None else columns)
        rows = read_files(self.table, [task.file.file_path for task in files], read) if files else self._nothing(read)
        admitted, excluded = self.admitted(rows)
        return with_plain_texts(admitted), excluded

    def allowed_portions(
        self, files: Sequence[FileScanTask], columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, dict[str, int]]]:
        """The same bit by bit, so that many rows need little memory; with texts as dictionaries."""
        read = self._read(columns)
        portions = read_portions(self.table, files, read, ROWS_AT_ONCE) if files else iter([self._nothing(read)])
        return map(self.admitted, portions)

    def admitted(self, rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """Of rows of the table those that the purpose admits, and how many were left out for which reason."""
        if self.is_personal:
            decision = decide(rows, self.purpose, self.known, self.at_ms)
            return rows.filter(pa.array(decision.allowed)), decision.excluded
        decision, is_child = decide_for_aggregates(rows, self.purpose, self.known, self.at_ms)
        for name, of in ((CHILD, VIEWER_TOKEN), (CHILD_KNOWN, "ingested_at")):
            rows = rows.append_column(name, pc.if_else(pa.array(is_child), _plain(rows[of]), None))
        return rows.filter(pa.array(decision.allowed)), decision.excluded

    def _read(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns that are read, texts as dictionaries: what is decided is decided once for each value."""
        return tuple(columns if self.is_personal else dict.fromkeys((*columns, VIEWER_TOKEN, "ingested_at")))

    def _nothing(self, columns: Sequence[str]) -> pa.Table:
        return pa.schema([self.table.arrow_schema.field(name) for name in columns]).empty_table()

    def cut(self, key: str, buckets: int, files: Sequence[FileScanTask]) -> list[pa.Table]:
        """Admitted rows of `files` by the bucket of `key`; the first table also says what was excluded."""
        rows, excluded = self.allowed(files)
        parts = by_bucket(rows, key, buckets)
        return [noted(parts[0], excluded), *parts[1:]]

    def splitter(self, key: str, buckets: int) -> "partial[list[pa.Table]]":
        """`cut` by `key`, as what a shuffle applies to every group of files."""
        return partial(self.cut, key, buckets)


@dataclass(frozen=True)
class KnownPeople:
    """What is known of people, and as of which snapshots of the registries."""

    known: Registries
    snapshots: dict[str, int]

    @classmethod
    def now(cls, lakehouse: Lakehouse) -> "KnownPeople":
        """As the registries are now."""
        consents, profiles = (lakehouse.existing(spec.name) for spec in (tables.consents(), tables.profiles()))
        known = Registries(
            ConsentHistory.of(read_all(consents, tables.CONSENTS)),
            ProfileRegistry.of(read_all(profiles, tables.PROFILES)),
        )
        return cls(known, _snapshots([consents, profiles]))


def registries_as_of(lakehouse: Lakehouse, snapshots: Mapping[str, int]) -> Registries:
    """What was known of people as of some snapshots by table; nothing where there is none. Raises SnapshotGoneError."""

    def rows(spec: tables.TableSpec) -> pa.Table:
        return read_snapshot(lakehouse.existing(spec.name), snapshots.get(spec.name), spec.schema)

    return Registries(ConsentHistory.of(rows(tables.consents())), ProfileRegistry.of(rows(tables.profiles())))


def _snapshots(read: Iterable[Table | None]) -> dict[str, int]:
    """The snapshot of each table that has one, by its name."""
    current = {".".join(table.name()): table.metadata.current_snapshot_id for table in read if table is not None}
    return {name: snapshot_id for name, snapshot_id in current.items() if snapshot_id is not None}


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def noted(part: pa.Table, excluded: Mapping[str, int]) -> pa.Table:
    """The table with a note of what was left out beside it, by reason; `excluded_in` reads it."""
    return part.replace_schema_metadata({f"{EXCLUDED} {why}".encode(): str(n).encode() for why, n in excluded.items()})


def excluded_in(parts: Sequence[pa.Table]) -> dict[str, int]:
    """What `Viewing.cut` noted on these tables: rows left out, by reason."""
    totals: dict[str, int] = {}
    for part in parts:
        for name, count in (part.schema.metadata or {}).items():
            text = name.decode()
            if text.startswith(EXCLUDED):
                reason = text.removeprefix(f"{EXCLUDED} ")
                totals[reason] = totals.get(reason, 0) + int(count)
    return totals
