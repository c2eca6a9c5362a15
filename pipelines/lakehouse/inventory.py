"""What files a table has: read manifest by manifest, and kept without their column statistics, to fit in memory.

A table of months has 100,000s of files, and the bounds and counts of some thirty columns are most of what a manifest
says of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.typedef import Record

from pipelines.lakehouse.catalog import LakehouseError

# What of a file's record is kept; the rest are statistics of columns.
_KEPT = ("content", "file_path", "file_format", "partition", "record_count", "file_size_in_bytes")


@dataclass(frozen=True)
class Span:
    """The least and greatest value of a timestamp column in a file, ms since the epoch."""

    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class LiveFile:
    """A data file of a snapshot: when its rows happened and were ingested, where that is known."""

    file: DataFile
    happened: Span | None
    ingested: Span | None

    @property
    def path(self) -> str:
        """Where it is."""
        return self.file.file_path

    @property
    def partition(self) -> tuple[int, Record]:
        """Which partition it belongs to, of which of the table's partition specs."""
        return self.file.spec_id, self.file.partition


def inventory(table: Table, snapshot: Snapshot | None) -> Iterator[LiveFile]:
    """Every data file of `snapshot`. Raises LakehouseError for a table with delete files, which Reel never writes."""
    if snapshot is None:
        return
    columns = table.schema().column_names
    ids = {
        name: table.schema().find_field(name).field_id for name in ("event_timestamp", "ingested_at") if name in columns
    }
    for manifest in snapshot.manifests(table.io):
        if manifest.content is not ManifestContent.DATA:
            raise LakehouseError(
                f"{'.'.join(table.name())} has delete files, which Reel does not write; compact it with what did"
            )
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            file = entry.data_file
            yield LiveFile(
                _without_statistics(file),
                _span(file, ids.get("event_timestamp")),
                _span(file, ids.get("ingested_at")),
            )


def _without_statistics(file: DataFile) -> DataFile:
    slim = DataFile.from_args(**{name: getattr(file, name) for name in _KEPT})
    slim.spec_id = file.spec_id
    return slim


def _span(file: DataFile, field_id: int | None) -> Span | None:
    lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
    if field_id is None or field_id not in lower or field_id not in upper:
        return None
    # Iceberg keeps bounds in its binary form of single values: of a timestamp, little-endian microseconds.
    first_us, last_us = (int.from_bytes(bound[field_id], "little", signed=True) for bound in (lower, upper))
    return Span(first_us // 1000, last_us // 1000)
