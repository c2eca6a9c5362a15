"""Commits: data files and what the station has consumed, together, once.

A station writes data files from many Ray tasks and commits them from one place, in one Iceberg commit that also
carries what the station has consumed, as JSON in the snapshot's summary. The commit succeeds only on the snapshot
the work was planned from (`commit.retry.num-retries = 0`): of two runs at once the second fails cleanly, with
nothing written, and plans again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyiceberg.exceptions import (
    CommitFailedException,
)
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import LakehouseError

PROGRESS = "reel.progress"


class ConcurrentCommitError(LakehouseError):
    """Another run committed first; nothing of this one was written."""

    passes = True

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table}: another run committed while this one worked, so nothing of this one was committed; "
            "run it again and it goes on from there"
        )


def commit_files(
    table: Table, files: Sequence[DataFile], progress: Mapping[str, Any], facts: Mapping[str, str] | None = None
) -> Table:
    """Append `files` and record `progress` in one commit; also when there is no file, so that progress advances.

    Raises ConcurrentCommitError when the table has moved on since it was loaded.
    """
    name = ".".join(table.name())
    summary = {PROGRESS: json.dumps(progress, sort_keys=True), **(facts or {})}
    transaction = table.transaction()
    try:
        with transaction.update_snapshot(snapshot_properties=summary).fast_append() as append:
            for file in files:
                append.append_data_file(file)
        return transaction.commit_transaction()
    except CommitFailedException:
        raise ConcurrentCommitError(name) from None


def replace_files(
    table: Table, stale: Iterable[DataFile], files: Sequence[DataFile], progress: Mapping[str, Any]
) -> Table:
    """Put `files` in the place of `stale` in one commit. Raises ConcurrentCommitError as `commit_files` does."""
    summary = {PROGRESS: json.dumps(progress, sort_keys=True)}
    transaction = table.transaction()
    try:
        with transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwrite:
            for file in stale:
                overwrite.delete_data_file(file)
            for file in files:
                overwrite.append_data_file(file)
        return transaction.commit_transaction()
    except CommitFailedException:
        raise ConcurrentCommitError(".".join(table.name())) from None


def progress_of(table: Table) -> dict[str, Any]:
    """What the newest commit that recorded progress had consumed; {} for a new table."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        if snapshot.summary is not None and PROGRESS in snapshot.summary.additional_properties:
            found: dict[str, Any] = json.loads(snapshot.summary.additional_properties[PROGRESS])
            return found
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return {}
