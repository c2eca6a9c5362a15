"""Commits: data files and what the station has consumed, together, once.

A station writes data files from many Ray tasks and commits them from one place, in one Iceberg commit that also
carries what the station has consumed, as JSON in the snapshot's summary. What can come between, and what becomes of it:

    another run of the station was faster    its progress moved: ConcurrentCommitError, nothing written, plan again
    maintenance was faster                   progress stands where it stood: the same commit, on top of the new snapshot
    somebody was erased      the run may hold rows of theirs: ErasedMeanwhileError, nothing written, begin again
    the answer was lost                      the commit's own id is looked for first, so nothing is appended twice
    the catalog refuses                      tried again for some seconds, then CommitRefusedError, nothing lost

The catalog's own check (the commit names the snapshot it builds on) decides every race. pyiceberg's retries are off
(`commit.retry.num-retries = 0`), because they would append to whatever is there.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pyiceberg.exceptions import ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.erasures import ERASURES, newest_mark
from pipelines.lakehouse.transactions import LeanTransaction

PROGRESS = "reel.progress"
COMMIT_ID = "reel.commit-id"
ATTEMPTS = 8
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


class ConcurrentCommitError(LakehouseError):
    """Another run committed first; nothing of this one was written."""

    passes = True

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table}: another run committed while this one worked, so nothing of this one was committed; "
            "run it again and it goes on from there"
        )


class ErasedMeanwhileError(ConcurrentCommitError):
    """Somebody was erased while a run worked that may have read rows of theirs; nothing more of it was written."""

    def __init__(self, table: str) -> None:
        LakehouseError.__init__(
            self,
            f"{table}: somebody was erased while this run worked, which may have read rows of theirs, so it committed "
            "nothing more; run it again and it goes on from there",
        )


class CommitRefusedError(LakehouseError):
    """The catalog took no commit, however often it was asked."""

    passes = True

    def __init__(self, table: str, attempts: int, reason: BaseException) -> None:
        super().__init__(
            f"{table}: the catalog took no commit in {attempts} attempts ({_in_one_line(reason)}); nothing was lost: "
            "run it again when the catalog is well, and it goes on from the last commit"
        )


def commit_files(
    table: Table,
    files: Sequence[DataFile],
    progress: Mapping[str, Any] | None,
    facts: Mapping[str, str] | None = None,
    *,
    check: Callable[[Table], None] = lambda table: None,
) -> Table:
    """Append `files` and record `progress` in one commit; also when there is no file, so that progress advances.

    Without `progress` what is recorded stays, whatever that has become. `check` is shown the very table that the
    commit builds on, as others may have changed it, and may raise to commit nothing.

    Returns the table as it is then. Raises ConcurrentCommitError when another run has recorded progress since the
    table was loaded, CommitRefusedError when the catalog takes no commit.
    """

    def append(transaction: Transaction, summary: dict[str, str]) -> None:
        with transaction.update_snapshot(snapshot_properties=summary).merge_append() as appended:
            for file in files:
                appended.append_data_file(file)

    return _commit(table, append, progress, facts, check)


def replace_files(
    table: Table,
    stale: Iterable[DataFile],
    files: Sequence[DataFile],
    progress: Mapping[str, Any] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Table:
    """Put `files` in the place of `stale` in one commit.

    Without `progress` what is recorded stays, whatever that has become, and others may append meanwhile: so does
    maintenance. Raises as `commit_files` does, and ConcurrentCommitError also when a stale file is no longer there.
    """
    gone = list(stale)

    def overwrite(transaction: Transaction, summary: dict[str, str]) -> None:
        with transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwritten:
            if transaction.table_metadata.spec().is_unpartitioned():
                # Manifests are chosen by the partitions of the stale files; without partitions none would be.
                overwritten.delete_by_predicate(AlwaysTrue())
            for file in gone:
                overwritten.delete_data_file(file)
            for file in files:
                overwritten.append_data_file(file)

    return _commit(table, overwrite, progress, facts)


def progress_of(table: Table, snapshot_id: int | None = None) -> dict[str, Any]:
    """What the newest commit that recorded progress had consumed, up to a snapshot if one is given; else {}."""
    snapshot = table.current_snapshot() if snapshot_id is None else table.snapshot_by_id(snapshot_id)
    while snapshot is not None:
        if snapshot.summary is not None and PROGRESS in snapshot.summary.additional_properties:
            found: dict[str, Any] = json.loads(snapshot.summary.additional_properties[PROGRESS])
            return found
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return {}


def try_until_committed(table: Table, attempt: Callable[[Table], Table], settled: Callable[[Table], bool]) -> Table:
    """`attempt` on the table, again and again with growing pauses while it fails, each time on the table as it then is.

    `settled` is asked about the table after every failure: the change may be there although the answer was lost.
    It may raise, to end the attempts. An attempt that failed because others had committed does not count: some commit
    went through. Raises CommitRefusedError after the last that counts.
    """
    reason: Exception
    refusals = 0
    while refusals < ATTEMPTS:
        try:
            return attempt(table)
        except LakehouseError:
            raise
        except Exception as error:  # noqa: BLE001 - every catalog has failures of its own, and most of them pass
            reason = error
        time.sleep(min(FIRST_PAUSE_S * 2**refusals, LONGEST_PAUSE_S) * random.uniform(0.75, 1.25))
        try:
            seen, table = table, table.catalog.load_table(table.name())
        except Exception as error:  # noqa: BLE001 - the same
            reason = error
            refusals += 1
            continue
        if settled(table):
            return table
        refusals += seen.metadata.current_snapshot_id == table.metadata.current_snapshot_id
    raise CommitRefusedError(".".join(table.name()), ATTEMPTS, reason) from reason


def _commit(
    table: Table,
    change: Callable[[Transaction, dict[str, str]], None],
    progress: Mapping[str, Any] | None,
    facts: Mapping[str, str] | None,
    check: Callable[[Table], None] = lambda table: None,
) -> Table:
    name = ".".join(table.name())
    planned_from = progress_of(table)
    commit_id = str(uuid.uuid4())

    def attempt(current: Table) -> Table:
        check(current)
        if ERASURES in (facts or {}) and (facts or {})[ERASURES] != newest_mark(current.catalog):
            raise ErasedMeanwhileError(name)
        recorded = progress_of(current) if progress is None else progress
        summary = {PROGRESS: json.dumps(recorded, sort_keys=True), COMMIT_ID: commit_id, **(facts or {})}
        transaction = LeanTransaction(current)
        try:
            change(transaction, summary)
            return transaction.commit_transaction()
        except ValidationException:  # a stale file was replaced by somebody else
            raise ConcurrentCommitError(name) from None

    def settled(current: Table) -> bool:
        if holds_commit(current, commit_id):
            return True
        if progress is not None and progress_of(current) != planned_from:
            raise ConcurrentCommitError(name)
        return False

    return try_until_committed(table, attempt, settled)


def holds_commit(table: Table, commit_id: str) -> bool:
    """Whether the commit is among the table's snapshots."""
    return any(
        snapshot.summary is not None and snapshot.summary.additional_properties.get(COMMIT_ID) == commit_id
        for snapshot in table.metadata.snapshots
    )


def _in_one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
