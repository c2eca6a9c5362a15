"""View.

input   a role, and a table that it may see something of
does    reads the columns that the role may see, of people who allow the role's purpose; on the audit log
output  rows on the screen, or a Parquet file
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.table import Table

from features.consent import ConsentHistory
from features.decision import DECISION_COLUMNS, Registries, concerns_somebody, decide
from features.profiles import ProfileRegistry
from features.purposes import Purpose
from pipelines.lakehouse import lineage, tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_all, read_tasks, scan_tasks
from pipelines.lineage import UnknownTableError
from pipelines.privacy.access import Access, asks
from pipelines.report import StationReport, add_counts, timed
from pipelines.settings import Settings

_DECISION = {"source", *DECISION_COLUMNS}


@dataclass(frozen=True)
class Viewed:
    """What a role was shown: up to `limit` rows, or a file."""

    rows: pa.Table
    report: StationReport


def view(settings: Settings, role: str, name: str, *, out: Path | None = None, limit: int = 20) -> Viewed:
    """Read the table `name` as `role`: into the Parquet file `out`, else at most `limit` rows.

    Raises AccessError for a role that is not there or may see nothing of the table, UnknownTableError.
    """
    access = Access.of(settings)
    purpose = access.role(role).purpose
    with timed("view") as report, lineage.run(settings, "view") as made:
        made.serves(*([purpose] if purpose is not None else []))
        lakehouse = Lakehouse.open(settings)
        table = lakehouse.existing(name)
        if table is None:
            raise UnknownTableError(name, lakehouse.names())
        reading = _Reading(table, access.require(role, name, table.schema().column_names), _Rows.of(lakehouse, purpose))
        rows = reading.first(limit) if out is None else reading.into(out)
        report.read = {name: reading.rows_read}
        report.did = {f"rows seen as {role}": reading.rows_seen}
        report.did |= {f"rows left out: {reason}": count for reason, count in reading.left_out.items()}
        report.wrote = {"file": str(out)} if out is not None else {}
    return Viewed(rows, report)


@dataclass(frozen=True)
class _Rows:
    """Which rows are seen for a purpose; None: all of them."""

    purpose: Purpose | None
    known: Registries
    at_ms: int

    @classmethod
    def of(cls, lakehouse: Lakehouse, purpose: Purpose | None) -> "_Rows":
        """As is known now."""
        consents = read_all(lakehouse.existing("privacy.consents"), tables.CONSENTS)
        profiles = read_all(lakehouse.existing("privacy.profiles"), tables.PROFILES)
        known = Registries(ConsentHistory.of(consents), ProfileRegistry.of(profiles))
        return cls(purpose, known, int(time.time() * 1000))

    def seen(self, rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """The rows that are seen, and how many are not, by reason."""
        if self.purpose is None or not asks(rows.column_names):
            return rows, {}
        is_somebodys = np.ones(rows.num_rows, dtype=bool)
        if "source" in rows.column_names:  # else every row is a person's
            is_somebodys = concerns_somebody(rows) | np.asarray(pc.fill_null(rows["is_kids"], False))
        decision = decide(rows.filter(pa.array(is_somebodys)), self.purpose, self.known, self.at_ms)
        seen = np.ones(rows.num_rows, dtype=bool)
        seen[is_somebodys] = decision.allowed
        return rows.filter(pa.array(seen)), decision.excluded


class _Reading:
    """One reading of a table, file by file, and what it has counted."""

    def __init__(self, table: Table, columns: list[str], rows: _Rows) -> None:
        self._table, self._rows = table, rows
        stored = table.schema().as_arrow()
        self._schema = pa.schema([stored.field(name) for name in columns])
        self._read = list(dict.fromkeys([*columns, *(name for name in stored.names if name in _DECISION)]))
        self.rows_read = self.rows_seen = 0
        self.left_out: dict[str, int] = {}

    def first(self, limit: int) -> pa.Table:
        """At most `limit` rows."""
        parts = [self._schema.empty_table()]
        for part in self._parts():
            parts.append(part.slice(0, limit - self.rows_seen))
            self.rows_seen += parts[-1].num_rows
            if self.rows_seen == limit:
                break
        return pa.concat_tables(parts)

    def into(self, file: Path) -> pa.Table:
        """All rows, into a Parquet file; none to show."""
        with pq.ParquetWriter(file, self._schema) as writer:
            for part in self._parts():
                writer.write_table(part)
                self.rows_seen += part.num_rows
        return self._schema.empty_table()

    def _parts(self) -> Iterator[pa.Table]:
        for task in scan_tasks(self._table):
            rows = read_tasks(TableFiles.of(self._table), [task], self._read)
            seen, left_out = self._rows.seen(rows)
            self.rows_read += rows.num_rows
            add_counts(self.left_out, left_out)
            yield seen.select(self._schema.names).cast(self._schema)
