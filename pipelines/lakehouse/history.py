"""A table's history written anew, as if some rows had never been in it.

A file that is replaced in the newest snapshot alone keeps its bytes: older snapshots name it, for those who are to go
on from one of them (`lakehouse.readers`) or to read as of one again. So each snapshot is put back under its own id,
naming the new files in the place of the old; whatever was recorded of it stays true, less the rows that are gone. One
commit does it, on top of which a new snapshot (`replace`) says so:

    1. every manifest of every snapshot is looked through, once; those that name a stale file, or keep a bound that
       would tell of somebody, are written anew
    2. manifest lists of the snapshots that name such a manifest are written anew
    3. one commit takes out the snapshots from the first of these on and puts them back, in their order
    4. what the table names no more is deleted: the stale files, the old manifests and their lists, and nothing else

A crash before step 3 leaves new files that nothing names; after it, old ones that nothing names and that
`history.leftovers` finds. Whoever reads a stale file at that moment finds it gone, and has to begin again.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.commits import COMMIT_ID, PROGRESS, holds_commit, try_until_committed
from pipelines.lakehouse.transactions import LeanTransaction

ERASED_ROWS = "reel.erased-rows"  # of the rows that a commit added, how many were taken out of history since
_MAIN = "main"
_NOTHING = [0, 0, 0]
_CODEC: Literal["deflate"] = "deflate"
_TOTALS = ("total-records", "total-data-files", "total-files-size", "total-delete-files", "total-position-deletes",
           "total-equality-deletes")  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """What is to be changed: stale files by path, each with the one in its place (None: no row is left), and bounds.

    `tells` says of an id column's bound, as manifests keep it, whether it would tell of somebody who is gone.
    """

    files: Mapping[str, DataFile | None]
    columns: Collection[int]  # the field ids of id columns
    tells: Callable[[bytes], bool]

    def of(self, entry: ManifestEntry) -> tuple[bool, DataFile | None]:
        """Whether a file's record changes, and what it becomes."""
        file = entry.data_file
        if file.file_path in self.files:
            return True, self.files[file.file_path]
        told = [one for one in self.columns if any(self.tells(bound) for bound in _bounds(file, one))]
        if not told:
            return False, file
        slim = DataFile.from_args(**{name: getattr(file, name) for name in _FIELDS})
        slim.spec_id = file.spec_id
        for bounds in (slim.lower_bounds, slim.upper_bounds):
            for one in told:
                bounds.pop(one, None)
        return True, slim


_FIELDS = (
    "content", "file_path", "file_format", "partition", "record_count", "file_size_in_bytes", "column_sizes",
    "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds", "key_metadata",
    "split_offsets", "equality_ids", "sort_order_id",
)  # fmt: skip


@dataclass
class _Less:
    """By how much a snapshot's summary shrinks, each by (rows, files, bytes)."""

    live: list[int] = field(default_factory=lambda: list(_NOTHING))
    by_snapshot: dict[tuple[int | None, ManifestEntryStatus], list[int]] = field(default_factory=dict)

    def note(self, entry: ManifestEntry, becomes: DataFile | None) -> None:
        """An entry that is gone, or becomes another file."""
        was = entry.data_file
        rows = was.record_count - (becomes.record_count if becomes is not None else 0)
        size = was.file_size_in_bytes - (becomes.file_size_in_bytes if becomes is not None else 0)
        change = (rows, int(becomes is None), size)
        own = self.by_snapshot.setdefault((entry.snapshot_id, entry.status), list(_NOTHING))
        for place, amount in enumerate(change):
            own[place] += amount
            if entry.status != ManifestEntryStatus.DELETED:
                self.live[place] += amount


@dataclass(frozen=True)
class _Twin:
    """A manifest written anew; None where no entry of it is left."""

    manifest: ManifestFile | None
    less: _Less


@dataclass
class Rewriting:
    """One rewriting of one table's history. It can be tried again on top of what others have committed meanwhile."""

    edit: Edit
    facts: Mapping[str, str]
    io: FileIO
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _twins: dict[str, _Twin | None] = field(default_factory=dict)  # by the path of the old one; None: it stays
    _old_lists: set[str] = field(default_factory=set)
    _written: int = 0

    def commit(self, table: Table) -> Table:
        """Steps 1 to 3; the table as it is then, and as it was where nothing of its history names what is edited.

        Raises CommitRefusedError when the catalog takes no commit.
        """
        return try_until_committed(table, self._attempt, lambda current: holds_commit(current, self.id))

    def delete_stale(self) -> int:
        """Step 4; how many files were there still to be deleted."""
        old_manifests = [path for path, twin in self._twins.items() if twin is not None]
        deleted = 0
        for path in [*self.edit.files, *old_manifests, *sorted(self._old_lists)]:
            with suppress(FileNotFoundError):  # another erasure was faster
                self.io.delete(path)
                deleted += 1
        return deleted

    def _attempt(self, table: Table) -> Table:
        self._old_lists.clear()
        snapshots = sorted(table.metadata.snapshots, key=lambda one: one.sequence_number or 0)
        manifests = {one.snapshot_id: one.manifests(table.io) for one in snapshots}
        for manifest in {one.manifest_path: one for some in manifests.values() for one in some}.values():
            if manifest.manifest_path not in self._twins:
                self._twins[manifest.manifest_path] = self._twin(table, manifest)
        touched = [
            place
            for place, one in enumerate(snapshots)
            if any(self._twins[manifest.manifest_path] is not None for manifest in manifests[one.snapshot_id])
        ]
        if not touched:
            return table
        redone = snapshots[touched[0] :]
        sequence: int = getattr(table.metadata, "last_sequence_number", 0)  # Reel's tables are of format 2
        again: list[Snapshot] = []
        for number, snapshot in enumerate(redone, start=1):
            again.append(self._put_back(table, snapshot, manifests[snapshot.snapshot_id], sequence + number))
        again.append(self._on_top(table, again, sequence + len(redone) + 1))
        ids = {one.snapshot_id for one in redone}
        branches = {name: one.snapshot_id for name, one in table.metadata.refs.items() if one.snapshot_id in ids}
        branches[_MAIN] = again[-1].snapshot_id
        updates: list[TableUpdate] = [
            RemoveSnapshotsUpdate.model_validate({"snapshot-ids": sorted(ids)}),
            *(AddSnapshotUpdate(snapshot=one) for one in again),
            *(_set_ref(name, table.metadata.refs[name].snapshot_ref_type, one) for name, one in branches.items()),
        ]
        # The snapshot that is built on must be there still; else somebody has committed, and it is tried again.
        newest = table.metadata.current_snapshot_id
        unmoved = AssertRefSnapshotId.model_validate({"ref": _MAIN, "snapshot-id": newest})
        transaction = LeanTransaction(table)
        transaction._apply(tuple(updates), (unmoved,))
        return transaction.commit_transaction()

    def _twin(self, table: Table, manifest: ManifestFile) -> _Twin | None:
        """Step 1, of one manifest; None when nothing of it changes."""
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        edited = [self.edit.of(entry) for entry in entries]
        if not any(changes for changes, _ in edited):
            return None
        less = _Less()
        left: list[ManifestEntry] = []
        for entry, (changes, becomes) in zip(entries, edited, strict=True):
            if changes:
                less.note(entry, becomes)
            if becomes is not None:
                _check_spec(table, becomes, manifest)
                left.append(
                    ManifestEntry.from_args(
                        status=entry.status,
                        snapshot_id=entry.snapshot_id,
                        sequence_number=entry.sequence_number,
                        file_sequence_number=entry.file_sequence_number,
                        data_file=becomes,
                    )
                )
        if not left:
            return _Twin(None, less)
        self._written += 1
        output = table.io.new_output(self._path(table, f"{self.id}-m{self._written}.avro"))
        with write_manifest(
            table.metadata.format_version,
            table.specs()[manifest.partition_spec_id],
            table.schema(),
            output,
            manifest.added_snapshot_id or 0,
            _CODEC,
        ) as writer:
            for entry in left:
                writer.add_entry(entry)
        twin = writer.to_manifest_file()
        twin.sequence_number = manifest.sequence_number
        twin.min_sequence_number = manifest.min_sequence_number
        return _Twin(twin, less)

    def _put_back(
        self, table: Table, snapshot: Snapshot, manifests: Collection[ManifestFile], sequence: int
    ) -> Snapshot:
        """Step 2, of one snapshot."""
        twins = [(one, self._twins[one.manifest_path]) for one in manifests]
        if all(twin is None for _, twin in twins):
            return snapshot.model_copy(update={"sequence_number": sequence})
        named = [one if twin is None else twin.manifest for one, twin in twins]
        self._old_lists.add(snapshot.manifest_list)
        left = [one for one in named if one is not None]
        path = self._write_list(table, left, snapshot.snapshot_id, snapshot.parent_snapshot_id, sequence)
        summary = _shrunk(snapshot, [twin.less for _, twin in twins if twin is not None])
        return snapshot.model_copy(update={"sequence_number": sequence, "manifest_list": path, "summary": summary})

    def _on_top(self, table: Table, again: Collection[Snapshot], sequence: int) -> Snapshot:
        """The snapshot that says what was done; it holds what the newest did."""
        newest = next(one for one in again if one.snapshot_id == table.metadata.current_snapshot_id)
        assert newest.summary is not None, "Reel's commits have one"
        said = newest.summary.additional_properties
        kept = {name: said[name] for name in (*_TOTALS, PROGRESS) if name in said}
        snapshot_id = uuid.uuid4().int & (2**63 - 1)
        path = self._write_list(table, list(newest.manifests(table.io)), snapshot_id, newest.snapshot_id, sequence)
        summary = Summary(Operation.REPLACE, **{**kept, COMMIT_ID: self.id, **self.facts})
        return newest.model_copy(
            update={
                "snapshot_id": snapshot_id,
                "parent_snapshot_id": newest.snapshot_id,
                "sequence_number": sequence,
                "timestamp_ms": max(int(time.time() * 1000), newest.timestamp_ms),
                "manifest_list": path,
                "summary": summary,
                "schema_id": table.metadata.current_schema_id,
            }
        )

    def _write_list(
        self, table: Table, named: list[ManifestFile], snapshot_id: int, parent_id: int | None, sequence: int
    ) -> str:
        path = self._path(table, f"snap-{snapshot_id}-{uuid.uuid4()}.avro")
        output = table.io.new_output(path)
        with write_manifest_list(
            table.metadata.format_version, output, snapshot_id, parent_id, sequence, _CODEC
        ) as writer:
            writer.add_manifests(named)
        return path

    def _path(self, table: Table, name: str) -> str:
        path: str = table.location_provider().new_metadata_location(name)
        return path


def _set_ref(name: str, kind: str, snapshot_id: int) -> SetSnapshotRefUpdate:
    return SetSnapshotRefUpdate.model_validate({"ref-name": name, "type": kind, "snapshot-id": snapshot_id})


def named_files(table: Table) -> Iterator[str]:
    """Every data file, manifest and manifest list that some snapshot of the table names."""
    yield from (snapshot.manifest_list for snapshot in table.metadata.snapshots)
    for manifest in _manifests(table):
        yield manifest.manifest_path
        yield from (file.file_path for file in _files(table, manifest))


def files_of_history(table: Table) -> list[DataFile]:
    """Every data file that some snapshot of the table has, once."""
    files = (file for manifest in _manifests(table) for file in _files(table, manifest))
    return list({file.file_path: file for file in files}.values())


def _manifests(table: Table) -> Collection[ManifestFile]:
    """Every manifest of every snapshot, once."""
    named = (manifest for snapshot in table.metadata.snapshots for manifest in snapshot.manifests(table.io))
    return {manifest.manifest_path: manifest for manifest in named}.values()


def _files(table: Table, manifest: ManifestFile) -> Iterator[DataFile]:
    return (entry.data_file for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True))


def _shrunk(snapshot: Snapshot, parts: Collection[_Less]) -> Summary | None:
    """What a snapshot's summary counts, less what is gone; and how many rows that it added are."""
    if snapshot.summary is None:
        return None
    said: dict[str, Any] = dict(snapshot.summary.additional_properties)
    live = [sum(one.live[place] for one in parts) for place in range(3)]
    added, deleted = (
        [
            sum(one.by_snapshot.get((snapshot.snapshot_id, status), _NOTHING)[place] for one in parts)
            for place in range(3)
        ]
        for status in (ManifestEntryStatus.ADDED, ManifestEntryStatus.DELETED)
    )
    for names, amounts in (
        (("total-records", "total-data-files", "total-files-size"), live),
        (("added-records", "added-data-files", "added-files-size"), added),
        (("deleted-records", "deleted-data-files", "removed-files-size"), deleted),
    ):
        for name, amount in zip(names, amounts, strict=True):
            if name in said:
                said[name] = str(max(0, int(said[name]) - amount))
    if added[0]:
        said[ERASED_ROWS] = str(int(said.get(ERASED_ROWS, 0)) + added[0])
    return Summary(snapshot.summary.operation, **said)


def _bounds(file: DataFile, field_id: int) -> list[bytes]:
    return [bounds[field_id] for bounds in (file.lower_bounds, file.upper_bounds) if bounds and field_id in bounds]


def _check_spec(table: Table, file: DataFile, manifest: ManifestFile) -> None:
    if file.spec_id != manifest.partition_spec_id:
        raise LakehouseError(
            f"{'.'.join(table.name())} is cut into partitions otherwise than it was; compact it with what changed "
            "that, then erase again"
        )
