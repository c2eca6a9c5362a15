"""The audit log: who ran what, when, for which purpose, on how many rows, and what came of it (spec 8.3, 11.3).

    privacy.audit    one row a record: its number, when it was recorded, and the record itself, a link of a chain

Nobody calls this but `lakehouse.lineage.run`, which every station enters. A run is recorded twice: that it begins,
before it does anything, and how it ended; so one that is killed is known as well, by its missing end. When the log
takes no record the run fails: nothing is done unaudited. Records hold counts and names of tables, columns and reasons,
and never an id or a message of an error, which may hold one.

A run that goes on for ever (`continuous`) has one record each few minutes instead of four a batch: what its batches
did is added up, with their run ids. A kill loses what was counted since; that it ran is on record, and what its
batches committed is in the snapshots.

One record is one Iceberg commit with the head of the chain in its progress (`lakehouse.commits`). The catalog's own
check decides between two writers: the slower finds that the head has moved, and links its record to the new one.
"""

import getpass
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import LessThan, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import Table

from pipelines.lakehouse.audit_chain import NO_RECORD, Head, extended
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.commits import ConcurrentCommitError, commit_files, progress_of
from pipelines.lakehouse.expiry import History, expire
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.readers import Readers
from pipelines.lakehouse.tables import audit_log
from pipelines.report import StationReport, add_counts
from pipelines.settings import Settings
from pipelines.version import code_version

RECORDS, HEAD, AT, BEGINS = "records", "head", "at_ms", "begins"
RETENTION, FIRST_KEPT, BEFORE = "retention", "first_kept", "before"
SNAPSHOTS_AT_MOST = 50  # every commit writes the whole history anew; then it is cut to
SNAPSHOTS_KEPT = 10
ATTEMPTS = 50  # against other writers, each of which got its record in
LONGEST_PAUSE_S = 0.5


class AuditLogError(LakehouseError):
    """The audit log takes no record."""

    def __init__(self, station: str, reason: BaseException, *, has_begun: bool) -> None:
        begun = " of how this ended; that it began is on record, and what it committed stands"
        what = begun if has_begun else ", so nothing was done"
        super().__init__(f"{station}: the audit log takes no record{what}: {reason}")


class AuditLogBusyError(AuditLogError):
    """The audit log takes no record just now."""

    passes = True


class AuditLog:
    """The log of one lakehouse, to be added to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lakehouse = Lakehouse.open(settings)

    def add(self, facts: Mapping[str, Any], begins: int = 0) -> Head:
        """Put one record at the end of the chain; the head that it makes. Raises LakehouseError.

        With `begins`, the records before that number are from now on none of the log.
        """
        for attempt in range(ATTEMPTS):
            table = self._lakehouse.table(audit_log())
            progress = progress_of(table)
            # A clock that runs behind another's must not make the log run backwards: retention goes by it.
            at_ms = max(int(time.time() * 1000), progress.get(AT, 0))
            at = datetime.fromtimestamp(at_ms / 1000, UTC)
            known = head_of(table)
            text, head = extended(known, {"at": instant_text(at), **facts})
            row = pa.table({"number": [known.records], "ingested_at": [at], "record": [text]})
            try:
                files = write_files(TableFiles.of(table), row)
                begun = max(begins, progress.get(BEGINS, 0))
                said = {RECORDS: head.records, HEAD: head.digest, AT: at_ms, BEGINS: begun}
                table = commit_files(table, files, said)
            except ConcurrentCommitError as faster:
                reason = faster
                time.sleep(random.uniform(0, min(0.02 * 2**attempt, LONGEST_PAUSE_S)))
                continue
            self._shorten(table)
            return head
        raise reason

    def _shorten(self, table: Table) -> None:
        if len(table.metadata.snapshots) >= SNAPSHOTS_AT_MOST:
            expire(table, History(0, SNAPSHOTS_KEPT, SNAPSHOTS_KEPT), Readers(), int(time.time() * 1000))


def instant_text(at: datetime) -> str:
    """An instant as records have it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def head_of(table: Table) -> Head:
    """Where the chain of a log ends, as its newest commit says."""
    progress = progress_of(table)
    return Head(progress.get(RECORDS, 0), progress.get(HEAD, NO_RECORD))


def announce_retention(settings: Settings, run: "Audited", before_ms: int) -> None:
    """Record that retention takes out what is older than `before_ms`, before it does: else it would be tampering.

    Records are in the order of their time, so what goes is the front of the chain.
    """
    log = AuditLog(settings)
    before = datetime.fromtimestamp(before_ms / 1000, UTC)
    table = Lakehouse.open(settings).table(audit_log())
    past = LessThan(term=Reference("ingested_at"), value=literal(instant_text(before)))
    gone = table.scan(past, selected_fields=("number",)).to_arrow()
    first_kept = int(pc.max(gone["number"]).as_py()) + 1
    facts = _facts(settings, run, RETENTION) | {FIRST_KEPT: first_kept, BEFORE: instant_text(before)}
    log.add(facts, begins=first_kept)


class Audited(Protocol):
    """A run of a station; for which purposes, and what it counted, is known when it ends."""

    @property
    def station(self) -> str:
        """Its name."""
        ...

    @property
    def id(self) -> str:
        """The run's own id, which its snapshots carry too."""
        ...

    @property
    def purposes(self) -> AbstractSet[str]:
        """What people's rows were used for."""
        ...

    @property
    def report(self) -> StationReport:
        """Counts."""
        ...


@contextmanager
def audited(settings: Settings, run: Audited) -> Iterator[None]:
    """Record that a run begins and how it ends. Raises AuditLogError when that cannot be recorded."""
    going_on = _continuous.get()
    if going_on is not None:
        with going_on.part(run):
            yield
        return
    log = _begin(settings, run)
    with _recorded(log, run.station, lambda failure: _ended(settings, run, failure)):
        yield


@contextmanager
def continuous(
    settings: Settings, station: str, *, tries_again: Callable[[AuditLogBusyError], bool] = lambda busy: False
) -> Iterator[None]:
    """Runs within the block are parts of one that goes on: recorded together, every `privacy.audit_minutes`.

    `tries_again` hears of a log that takes no record just now, may wait, and says whether to try again to begin.
    Raises AuditLogError.
    """
    run = _Whole(station, str(uuid.uuid4()), StationReport(station))
    log = _begun(settings, run, tries_again)
    going_on = _Continuous(settings, run, log)
    token = _continuous.set(going_on)
    try:
        with _recorded(log, station, lambda failure: _ended(settings, run, failure) | going_on.taken()):
            yield
    finally:
        _continuous.reset(token)


@contextmanager
def _recorded(log: AuditLog, station: str, ended: Callable[[BaseException | None], dict[str, Any]]) -> Iterator[None]:
    try:
        yield
    except BaseException as failure:
        # The failure is what the caller must hear of; that the run began is on record whatever becomes of this.
        try:
            log.add(ended(failure))
        except LakehouseError as unrecorded:
            failure.add_note(str(AuditLogError(station, unrecorded, has_begun=True)))
        raise
    _add(log, station, ended(None))


@dataclass(frozen=True)
class _Whole:
    """A continuous run as a whole; what its parts did is told of each."""

    station: str
    id: str
    report: StationReport
    purposes: AbstractSet[str] = frozenset()


@dataclass
class _Continuous:
    """What the runs of a continuous one did since it was last recorded."""

    settings: Settings
    whole: _Whole
    log: AuditLog
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    recorded_s: float = field(default_factory=time.monotonic)

    @contextmanager
    def part(self, run: Audited) -> Iterator[None]:
        """One run within."""
        try:
            yield
        except BaseException as failure:
            self._note(run, failure)
            raise
        self._note(run, None)
        if self.parts and time.monotonic() - self.recorded_s >= self.settings.privacy.audit_minutes * 60:
            # What could not be recorded is kept: whoever goes on after the error records it later.
            facts = _facts(self.settings, self.whole, "goes on") | {"parts": self.parts}
            _add(self.log, self.whole.station, facts)
            self.taken()

    def _note(self, run: Audited, failure: BaseException | None) -> None:
        counts = _counts(run.report)
        if failure is None and not any(sum(one.values()) for one in counts.values()):
            return  # it looked, and there was nothing
        part = self.parts.setdefault(run.station, {"runs": [], "purposes": [], "failures": {}})
        part["runs"].append(run.id)
        part["purposes"] = sorted({*part["purposes"], *run.purposes})
        if failure is not None:
            add_counts(part["failures"], {type(failure).__name__: 1})
        for name, found in counts.items():
            add_counts(part.setdefault(name, {}), found)

    def taken(self) -> dict[str, Any]:
        """What was noted, which is then recorded and forgotten."""
        noted, self.parts, self.recorded_s = self.parts, {}, time.monotonic()
        return {"parts": noted}


_continuous: ContextVar[_Continuous | None] = ContextVar("continuous", default=None)


def _begun(settings: Settings, run: Audited, tries_again: Callable[[AuditLogBusyError], bool]) -> AuditLog:
    while True:
        try:
            return _begin(settings, run)
        except AuditLogBusyError as busy:
            if not tries_again(busy):
                raise


def _begin(settings: Settings, run: Audited) -> AuditLog:
    try:
        log = AuditLog(settings)
        log.add(_facts(settings, run, "began"))
    except LakehouseError as error:
        raise _as_audit(run.station, error, has_begun=False) from None
    return log


def _add(log: AuditLog, station: str, facts: Mapping[str, Any]) -> None:
    try:
        log.add(facts)
    except LakehouseError as error:
        raise _as_audit(station, error, has_begun=True) from None


def _as_audit(station: str, error: LakehouseError, *, has_begun: bool) -> AuditLogError:
    return (AuditLogBusyError if error.passes else AuditLogError)(station, error, has_begun=has_begun)


def _facts(settings: Settings, run: Audited, outcome: str) -> dict[str, Any]:
    return {
        "who": settings.privacy.principal or _operating_system_user(),
        "station": run.station,
        "run_id": run.id,
        "code_version": code_version(),
        "outcome": outcome,
    }


def _ended(settings: Settings, run: Audited, failure: BaseException | None) -> dict[str, Any]:
    facts = _facts(settings, run, "completed" if failure is None else "failed")
    if failure is not None:
        facts["failure"] = type(failure).__name__
    return facts | {"purposes": sorted(run.purposes)} | _counts(run.report)


def _counts(report: StationReport) -> dict[str, dict[str, int]]:
    """What a station has counted; its texts, such as folders, are left out."""
    told = {"read": report.read, "did": report.did, "wrote": report.wrote}
    return {name: {what: n for what, n in facts.items() if type(n) is int} for name, facts in told.items()}


def _operating_system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number that has no name
        return f"uid {os.getuid()}"
