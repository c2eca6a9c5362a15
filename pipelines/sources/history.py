"""What a source has gained, as one numbered row of files.

A table that only grows is a log: its rows are numbered in the order of the snapshots that appended them, within one in
the order of its files' paths. Snapshots and files never change, so the numbers are the same whenever they are counted,
and a row is known by its number as a message is by its offset. The first time, the whole table is taken as it is then,
deleted rows left out (they keep their numbers).

    append              its files are new rows
    replace             compaction: the same rows elsewhere, nothing new
    overwrite, delete   rows were changed or taken away. Which of those it wrote are new nobody can tell, so none is
                        read; how many is said

What has been read is a `Position`, recorded with the rows. It may lie within a snapshot, at the end of a file, so that
a commit need not carry all of a large table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation, Snapshot

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.scans import ExpiredSnapshotError

# What of a file's record is kept: the statistics of its columns are most of it, and not needed.
_KEPT = ("content", "file_path", "file_format", "partition", "record_count", "file_size_in_bytes")


class SourceExpiredError(ExpiredSnapshotError):
    """What a source has gained since it was last read cannot be told."""

    def __init__(self, source: str, snapshot_id: int, is_there: bool) -> None:
        what = "the table was set back to before" if is_there else "its owner has expired"
        LakehouseError.__init__(
            self,
            f"{source}: {what} snapshot {snapshot_id}, up to which it had been read, so rows appended since may be "
            "missing; nothing was read. Run again with --accept-lost to go on with what its history still tells, and "
            "have snapshots kept for longer than it takes from one ingest to the next",
        )


class SourceReplacedError(LakehouseError):
    """A source is another table than the one that was read under its name."""

    def __init__(self, source: str, recorded: str, found: str) -> None:
        super().__init__(
            f"{source}: rows of the table {recorded} were read under this name, and now it is the table {found}: it "
            "was dropped and made anew. Give its catalog another name under `sources` to read it from its beginning"
        )


class UnreadableSourceError(LakehouseError):
    """A source has something that cannot be read rightly."""


@dataclass(frozen=True)
class Mark:
    """A snapshot, when it was committed (`sequence` is 0 in tables of Iceberg's first format), and a row's number."""

    snapshot: int
    sequence: int
    committed_ms: int
    offset: int

    @classmethod
    def of(cls, snapshot: Snapshot, offset: int) -> "Mark":
        """The mark of `snapshot` at the row of the number `offset`."""
        return cls(snapshot.snapshot_id, snapshot.sequence_number or 0, snapshot.timestamp_ms, offset)

    def is_before(self, snapshot: Snapshot) -> bool:
        """Whether `snapshot` was committed later."""
        return (self.sequence, self.committed_ms) < (snapshot.sequence_number or 0, snapshot.timestamp_ms)

    def is_right_before(self, snapshot: Snapshot) -> bool:
        """Whether nothing was committed between the two, also where what led to `snapshot` has expired."""
        is_parent = snapshot.parent_snapshot_id == self.snapshot
        return is_parent or (self.sequence > 0 and snapshot.sequence_number == self.sequence + 1)


@dataclass(frozen=True)
class Position:
    """Up to where a source has been read.

    `begun` is the snapshot that was read first, and the number its rows begin with: the whole table as of it, or only
    what it appended. `done` is the last that was read to its end, and the number after its last row; None while that is
    not even the first. `offset` is the number of the next row.
    """

    uuid: str
    begun: Mark
    is_whole: bool
    done: Mark | None
    offset: int

    @classmethod
    def beginning(cls, table: Table) -> "Position":
        """Nothing read yet, and the table, which has a snapshot, to be taken whole as it is now."""
        snapshot = table.current_snapshot()
        assert snapshot is not None, "a table without a snapshot has no news"
        return cls(str(table.metadata.table_uuid), Mark.of(snapshot, 0), True, None, 0)

    @classmethod
    def from_json(cls, recorded: Mapping[str, Any]) -> "Position":
        """As `to_json` made it."""
        done = recorded["done"]
        marks = {"begun": Mark(**recorded["begun"]), "done": Mark(**done) if done is not None else None}
        return cls(**{**recorded, **marks})

    def to_json(self) -> dict[str, Any]:
        """For a snapshot's record."""
        return asdict(self)

    def begun_again(self) -> "Position":
        """Where what has been read began."""
        return replace(self, done=None, offset=self.begun.offset)


@dataclass(frozen=True)
class SourceFile:
    """One file of new rows: the number of its first, the snapshot that brought it, and where reading it leads."""

    task: FileScanTask
    offset: int
    snapshot_id: int
    after: Position

    @property
    def rows(self) -> int:
        """Rows in the file, deleted ones too."""
        return int(self.task.file.record_count)


@dataclass
class News:
    """The files after a position, where they lead, and the snapshots that changed rows meanwhile."""

    files: list[SourceFile] = field(default_factory=list)
    end: Position | None = None
    changes: list[Snapshot] = field(default_factory=list)


def news(source: str, table: Table, start: Position) -> News:
    """What `table` has gained after `start`.

    Raises SourceReplacedError when it is another table, SourceExpiredError when its history does not reach back to
    `start`, UnreadableSourceError for a table with equality deletes when it is taken whole.
    """
    found_uuid = str(table.metadata.table_uuid)
    if start.uuid != found_uuid:
        raise SourceReplacedError(source, start.uuid, found_uuid)
    found = News()
    position = start
    offset = (start.done or start.begun).offset
    for snapshot in _after(source, table, start):
        if position.done is None and start.is_whole:
            tasks = _whole(source, table, snapshot)
        else:
            tasks = list(_appended(table, snapshot))
            found.changes += [snapshot] if _changes_rows(snapshot) else []
        files: list[SourceFile] = []
        for task in tasks:
            end = offset + task.file.record_count
            files.append(SourceFile(task, offset, snapshot.snapshot_id, replace(position, offset=end)))
            offset = end
        position = replace(position, done=Mark.of(snapshot, offset), offset=offset)
        if files:
            files[-1] = replace(files[-1], after=position)
        found.files += [file for file in files if file.after.offset > start.offset]
    found.end = position
    return found


def past_the_loss(table: Table, recorded: Position) -> Position:
    """A position like `recorded` that the history of `table` does reach back to: what is gone between is given up."""
    current = table.current_snapshot()
    if current is None:
        return recorded
    last = recorded.done or recorded.begun
    remaining = next((one for one in _ancestors(table) if last.is_before(one)), None)
    if remaining is None:  # set back to before what was read: go on from where it stands
        return replace(recorded, done=Mark.of(current, recorded.offset))
    return Position(recorded.uuid, Mark.of(remaining, recorded.offset), False, None, recorded.offset)


def _after(source: str, table: Table, start: Position) -> list[Snapshot]:
    """The snapshots that are not read to their ends, oldest first."""
    history = _ancestors(table)
    for place, snapshot in enumerate(history):
        if start.done is None and snapshot.snapshot_id == start.begun.snapshot:
            return history[place:]
        if start.done is not None and snapshot.snapshot_id == start.done.snapshot:
            return history[place + 1 :]
        if start.done is not None and start.done.is_right_before(snapshot):
            return history[place:]
    missing = (start.done or start.begun).snapshot
    raise SourceExpiredError(source, missing, table.snapshot_by_id(missing) is not None)


def _ancestors(table: Table) -> list[Snapshot]:
    """The snapshots that led to the current one, oldest first."""
    found: list[Snapshot] = []
    snapshot = table.current_snapshot()
    while snapshot is not None:
        found.append(snapshot)
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return found[::-1]


def _whole(source: str, table: Table, snapshot: Snapshot) -> list[FileScanTask]:
    try:
        tasks = list(table.scan(snapshot_id=snapshot.snapshot_id).plan_files())
    except (NotImplementedError, ValueError) as error:
        raise UnreadableSourceError(
            f"{source}: cannot be taken as it is: {error}; have its owner rewrite its data files without them"
        ) from None
    return _in_order(FileScanTask(_slim(task.file), task.delete_files) for task in tasks)


def _appended(table: Table, snapshot: Snapshot) -> Iterator[FileScanTask]:
    if snapshot.summary is None or snapshot.summary.operation is not Operation.APPEND:
        return
    files = [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        if manifest.content is ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if entry.status is ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id
    ]
    yield from _in_order(FileScanTask(_slim(file)) for file in files)


def _in_order(tasks: Iterator[FileScanTask]) -> list[FileScanTask]:
    return sorted((task for task in tasks if task.file.record_count), key=lambda task: task.file.file_path)


def _slim(file: DataFile) -> DataFile:
    slim = DataFile.from_args(**{name: getattr(file, name) for name in _KEPT})
    slim.spec_id = file.spec_id
    return slim


def _changes_rows(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation in (Operation.OVERWRITE, Operation.DELETE)


def rows_changed(snapshots: Sequence[Snapshot]) -> tuple[int, int]:
    """How many rows some snapshots took away or marked as deleted, and how many they wrote."""
    summaries = [one.summary.additional_properties for one in snapshots if one.summary is not None]

    def total(*keys: str) -> int:
        return sum(int(summary.get(key, "0")) for summary in summaries for key in keys)

    gone = total("deleted-records", "added-position-deletes", "added-equality-deletes")
    return gone, total("added-records")
