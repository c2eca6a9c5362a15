"""Compaction: many small files of a partition become few, holding the same rows.

A stream commits every few seconds a file for each event, and a reader pays for every file it opens. Small files of a
partition are gathered in the order of their events, so that a file stays a stretch of time and its bounds stay narrow.
What is gathered must at least double its largest part: so a row is rewritten at most once for every doubling on its
way to the target, however often this runs.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.transforms import BucketTransform

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.inventory import LiveFile
from pipelines.lakehouse.scans import read_files

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class Target:
    """How large a file should be: of so many bytes, or of so many rows, whichever comes first."""

    size_bytes: int
    rows: int

    def is_small(self, file: DataFile) -> bool:
        """Whether it is under half of both."""
        return file.file_size_in_bytes * 2 < self.size_bytes and file.record_count * 2 < self.rows


Group = tuple[LiveFile, ...]
"""Files of one partition, to become one."""


@dataclass(frozen=True)
class Rewritten:
    """What became of a group."""

    stale: tuple[DataFile, ...]
    files: tuple[DataFile, ...]


def groups(files: Iterable[LiveFile], target: Target) -> Iterator[Group]:
    """Groups of small files that are worth rewriting."""
    partitions: dict[object, list[LiveFile]] = defaultdict(list)
    for file in files:
        if target.is_small(file.file):
            partitions[file.partition].append(file)
    for small in partitions.values():
        small.sort(key=lambda file: (file.happened.first_ms if file.happened else 0, file.path))
        for group in _filled(small, target):
            worth = _doubling(group)
            if len(worth) > 1:
                yield worth


def rewrite(table: TableFiles, group: Sequence[LiveFile], ingested_from_ms: int | None = None) -> Rewritten:
    """Write the rows of `group` anew, without those ingested earlier when that is given. Runs in a Ray task.

    Raises LakehouseError if rows would be lost: what is read is counted against what the table says it has, and what
    is written against what is to stay.
    """
    rows = read_files(table, [file.path for file in group], _columns(table, group))
    recorded = sum(file.file.record_count for file in group)
    kept = rows if ingested_from_ms is None else _ingested_from(rows, ingested_from_ms)
    files = write_files(table, _in_order(table, kept))
    written = sum(file.record_count for file in files)
    if rows.num_rows != recorded or written != kept.num_rows:
        raise LakehouseError(
            f"{table.metadata.location}: {recorded} rows on record, {rows.num_rows} read, {kept.num_rows} to be kept, "
            f"{written} written; nothing was replaced. Look at {group[0].path}, which may be damaged"
        )
    return Rewritten(tuple(file.file for file in group), tuple(files))


def _filled(files: Sequence[LiveFile], target: Target) -> Iterator[Group]:
    group: list[LiveFile] = []
    size_bytes = rows = 0
    for one in files:
        file = one.file
        if group and (
            size_bytes + file.file_size_in_bytes > target.size_bytes or rows + file.record_count > target.rows
        ):
            yield tuple(group)
            group, size_bytes, rows = [], 0, 0
        group.append(one)
        size_bytes += file.file_size_in_bytes
        rows += file.record_count
    yield tuple(group)


def _doubling(group: Group) -> Group:
    """Without its largest files, as long as one of them is larger than all the others together."""
    by_size = sorted(group, key=lambda one: one.file.file_size_in_bytes)
    total = sum(one.file.file_size_in_bytes for one in group)
    while by_size and by_size[-1].file.file_size_in_bytes * 2 > total:
        total -= by_size.pop().file.file_size_in_bytes
    kept = {one.path for one in by_size}
    return tuple(one for one in group if one.path in kept)


def _columns(table: TableFiles, group: Sequence[LiveFile]) -> list[str]:
    """The columns that some file of the group has, by field id: a file holds few of a wide table's columns."""
    ids: set[int] = set()
    for file in group:
        with table.io.new_input(file.path).open() as stream:
            ids |= {int(field.metadata[_FIELD_ID]) for field in pq.read_schema(stream)}
    return [field.name for field in table.metadata.schema().fields if field.field_id in ids]


def _ingested_from(rows: pa.Table, from_ms: int) -> pa.Table:
    return rows.filter(pc.greater_equal(rows["ingested_at"], pa.scalar(from_ms * 1000, rows["ingested_at"].type)))


def _in_order(table: TableFiles, rows: pa.Table) -> pa.Table:
    """By event_timestamp, but for rows that are kept together by key: their writer chose their order."""
    if any(isinstance(field.transform, BucketTransform) for field in table.metadata.spec().fields):
        return rows
    if "event_timestamp" not in rows.column_names:
        return rows
    return rows.unify_dictionaries().sort_by("event_timestamp")
