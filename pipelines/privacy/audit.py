"""Reading the audit log, and checking that nobody has changed it (`lakehouse.audit` writes it).

What a check finds: any record that was changed, taken out, moved, or put in between; an end that was cut off, because
the head that the newest commit carries names the last record. Who may write to the table and rewrites every record
from some number on, and the head too, makes a chain that holds; that is found only by heads that were noted elsewhere.
So each check that finds all in order notes the head in a file (`privacy.audit_heads_file`), and compares with every
head that is noted there: keep the file where those who write to the warehouse cannot write. What was changed after the
last check, head and all, cannot be told.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, GreaterThanOrEqual, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import FileScanTask, Table

from pipelines.errors import ReelError, UsageError
from pipelines.lakehouse.audit import BEFORE, BEGINS, FIRST_KEPT, RETENTION, head_of, instant_text
from pipelines.lakehouse.audit_chain import AT, Broken, Head, Row, first_broken
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import FileGoneError, read_tasks, scan_tasks
from pipelines.lakehouse.tables import AUDIT
from pipelines.settings import Settings

Record = dict[str, Any]


class AuditLogBrokenError(ReelError):
    """The audit log is not as it was written."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(f"the audit log does not hold from record {broken.number} on: {broken.reason}")


@dataclass(frozen=True)
class Verified:
    """A log that is as it was written.

    `begins`: the first record that retention has left. `unended`: run ids that have a begin and no end: they run, or
    were killed.
    """

    records: int
    begins: int
    head: Head
    unended: tuple[str, ...]


def records(settings: Settings, since: datetime | None = None) -> Iterator[Record]:
    """The records made at `since` or later, in order."""
    table = Lakehouse.open(settings).existing(AUDIT)
    if table is not None:
        begins = progress_of(table).get(BEGINS, 0)
        yield from (json.loads(row.text) for row in _rows(table, since) if row.number >= begins)


def verify(settings: Settings) -> Verified:
    """Check every link; note the head where heads are noted. Raises AuditLogBrokenError naming the first that fails."""
    heads_file = settings.privacy.audit_heads_file or settings.work_dir / "audit.heads"
    known = noted_heads(heads_file)
    table = Lakehouse.open(settings).existing(AUDIT)
    if table is None:
        if known:
            raise AuditLogBrokenError(
                Broken(0, f"there is no table {AUDIT}, and {known[-1].records} records are noted")
            )
        return Verified(0, 0, Head(), ())
    begins, head = progress_of(table).get(BEGINS, 0), head_of(table)
    seen = _Seen(settings.lakehouse.audit_retention_days)
    try:
        broken = first_broken(seen.of(r for r in _rows(table, None) if r.number >= begins), head, begins, known)
    except (OSError, pa.ArrowException, FileGoneError) as error:
        raise AuditLogBrokenError(Broken(seen.last + 1, f"a file of {AUDIT} cannot be read ({_line(error)})")) from None
    broken = broken or seen.unannounced(begins)
    if broken is not None:
        raise AuditLogBrokenError(broken)
    if head not in known and head.records:
        note_head(heads_file, head)
    return Verified(head.records, begins, head, tuple(seen.running))


class _Seen:
    """What is noted of the records as they go by."""

    def __init__(self, retention_days: float) -> None:
        self._retention = timedelta(days=retention_days)
        self.last = -1
        self.running: dict[str, None] = {}
        self._announced: set[Any] = set()
        self._too_early: int | None = None

    def of(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, unchanged; noted once they were found to be in order."""
        for row in rows:
            yield row  # what is no link of the chain ends the reading here
            self.last = row.number
            self._note(row.number, json.loads(row.text))

    def _note(self, number: int, record: Record) -> None:
        outcome, run_id = record.get("outcome"), record.get("run_id")
        if outcome == "began":
            self.running[str(run_id)] = None
        elif outcome in ("completed", "failed"):
            self.running.pop(str(run_id), None)
        elif outcome == RETENTION and {FIRST_KEPT, BEFORE} <= record.keys():
            self._announced.add(record[FIRST_KEPT])
            with suppress(ValueError, TypeError):  # a last record that was changed: the head tells
                if datetime.fromisoformat(record[AT]) - datetime.fromisoformat(record[BEFORE]) < self._retention:
                    self._too_early = number

    def unannounced(self, begins: int) -> Broken | None:
        """Records that went otherwise than by retention."""
        if self._too_early is not None:
            reason = f"record {self._too_early} took out records younger than lakehouse.audit_retention_days"
            return Broken(self._too_early, reason)
        if begins and begins not in self._announced:
            return Broken(0, f"records 0 to {begins - 1} are missing, and no record says that retention took them")
        return None


def noted_heads(file: Path) -> list[Head]:
    """The heads that were noted in a file, oldest first; none when it is not there. Raises UsageError."""
    try:
        lines = file.read_text().splitlines()
        return [Head(one["records"], one["digest"]) for one in map(json.loads, lines)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"privacy.audit_heads_file: {file} cannot be read as noted heads: {_line(error)}") from None


def note_head(file: Path, head: Head) -> None:
    """Add a head to those noted in a file."""
    noted = {"at": instant_text(datetime.now(UTC)), "records": head.records, "digest": head.digest}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(noted) + "\n")
    except OSError as error:
        raise UsageError(f"privacy.audit_heads_file: {file} cannot be written: {_line(error)}") from None


def _rows(table: Table, since: datetime | None) -> Iterator[Row]:
    """Rows in the order of their numbers, read month by month."""
    wanted: BooleanExpression = AlwaysTrue()
    if since is not None:
        wanted = GreaterThanOrEqual(term=Reference("ingested_at"), value=literal(instant_text(since)))
    months: dict[Any, list[FileScanTask]] = defaultdict(list)
    for task in scan_tasks(table, wanted):
        months[task.file.partition[0]].append(task)
    for month in sorted(months):
        found = read_tasks(TableFiles.of(table), months[month], row_filter=wanted).sort_by("number")
        for batch in found.select(["number", "ingested_at", "record"]).to_batches():
            for number, at, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Row(number, instant_text(at), text)


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
