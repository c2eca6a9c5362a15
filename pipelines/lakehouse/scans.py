"""Reading tables: which files, which rows, cut into which buckets."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from pipelines.lakehouse.files import TableFiles


def scan_tasks(table: Table, row_filter: BooleanExpression | None = None) -> list[FileScanTask]:
    """The files of the current snapshot that may hold rows of `row_filter`."""
    if table.current_snapshot() is None:
        return []
    return list(table.scan(row_filter=row_filter or AlwaysTrue()).plan_files())


def new_scan_tasks(table: Table, after_snapshot: int | None, row_filter: BooleanExpression) -> list[FileScanTask]:
    """The files appended after snapshot `after_snapshot` (ever, when None) that may hold rows of `row_filter`."""
    newest = table.current_snapshot()
    if newest is None or newest.snapshot_id == after_snapshot:
        return []
    scan = table.incremental_append_scan(from_snapshot_id_exclusive=after_snapshot, row_filter=row_filter)
    return list(scan.plan_files())


def string_bounds(table: Table, file: DataFile, column: str) -> tuple[bytes, bytes] | None:
    """The least and greatest value of a string column in `file`, cut short as Iceberg keeps them; None if unknown."""
    field_id = table.schema().find_field(column).field_id
    lower, upper = (bounds or {} for bounds in (file.lower_bounds, file.upper_bounds))
    return (lower[field_id], upper[field_id]) if field_id in lower and field_id in upper else None


def read_tasks(
    table: TableFiles,
    tasks: Sequence[FileScanTask],
    columns: Sequence[str] | None = None,
    row_filter: BooleanExpression | None = None,
) -> pa.Table:
    """Rows of `tasks`, with `columns` only when given. Safe from any Ray task."""
    schema = table.metadata.schema() if columns is None else table.metadata.schema().select(*columns)
    scan = ArrowScan(table.metadata, table.io, schema, row_filter or AlwaysTrue())
    return scan.to_table(tasks)


def read_all(table: Table | None, empty: pa.Schema) -> pa.Table:
    """A small table (registries, titles) whole."""
    if table is None or table.current_snapshot() is None:
        return empty.empty_table()
    return read_tasks(TableFiles.of(table), scan_tasks(table), empty.names).cast(empty)


def bucket_of(keys: pa.ChunkedArray | pa.Array, buckets: int) -> np.ndarray:
    """The bucket of each key, shape (n,): Iceberg's own bucket transform, so that files on disk and rows in flight
    are cut alike. A null key has none: -1.
    """
    strings = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    cut = BucketTransform(buckets).pyarrow_transform(StringType())(strings)
    found: np.ndarray = cut.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def by_bucket(rows: pa.Table, key: str, buckets: int) -> list[pa.Table]:
    """`rows` cut by the bucket of their key; rows without a key are left out."""
    bucket = bucket_of(rows[key].combine_chunks(), buckets)
    return [rows.filter(pa.array(bucket == wanted)) for wanted in range(buckets)]


def scan_of_bucket(files: Sequence[FileScanTask], bucket: int) -> list[FileScanTask]:
    """The files of one bucket, of a table that is partitioned by nothing else."""
    return [task for task in files if task.file.partition[0] == bucket]


def newest_event_ms(table: Table | None) -> int | None:
    """The latest event_timestamp in the table, from its files' bounds alone; None for an empty table."""
    if table is None or table.current_snapshot() is None:
        return None
    field_id = table.schema().find_field("event_timestamp").field_id
    bounds = [(task.file.upper_bounds or {}).get(field_id) for task in scan_tasks(table)]
    # Iceberg keeps bounds in its binary form of single values: of a timestamp, little-endian microseconds.
    newest_us = [int.from_bytes(bound, "little", signed=True) for bound in bounds if bound is not None]
    return max(newest_us) // 1000 if newest_us else None


def row_count(table: Table | None) -> int:
    """Rows of the current snapshot, from its metadata alone."""
    snapshot = table.current_snapshot() if table is not None else None
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary.additional_properties.get("total-records", "0"))


def file_groups(tasks: Iterable[FileScanTask], rows_per_group: int) -> Iterator[list[FileScanTask]]:
    """Files gathered into groups of about `rows_per_group` rows, so that many small ones make few tasks."""
    group: list[FileScanTask] = []
    rows = 0
    for task in tasks:
        if group and rows + task.file.record_count > rows_per_group:
            yield group
            group, rows = [], 0
        group.append(task)
        rows += task.file.record_count
    if group:
        yield group
