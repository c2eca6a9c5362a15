"""The Iceberg lakehouse: opening the catalog, writing files anywhere, committing them once.

A station writes data files from many Ray tasks and commits them from one place, in one Iceberg commit that also
carries what the station has consumed, as JSON in the snapshot's summary. The commit succeeds only on the snapshot
the work was planned from (`commit.retry.num-retries = 0`): of two runs at once the second fails cleanly, with
nothing written, and plans again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import BucketTransform, parse_transform
from pyiceberg.types import StringType

from pipelines.errors import ReelError
from pipelines.settings import Settings
from pipelines.tables import TableSpec

PROGRESS = "reel.progress"
_TABLE_PROPERTIES = {"commit.retry.num-retries": "0", "write.parquet.compression-codec": "zstd"}


class LakehouseError(ReelError):
    """The catalog or the warehouse cannot be used."""


class ConcurrentCommitError(LakehouseError):
    """Another run committed first; nothing of this one was written."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table}: another run committed while this one worked, so nothing of this one was committed; "
            "run it again and it goes on from there"
        )


class Lakehouse:
    """The tables of one Iceberg catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @classmethod
    def open(cls, settings: Settings) -> "Lakehouse":
        """Connect to the configured catalog. Raises LakehouseError when it cannot be reached."""
        chosen = settings.lakehouse
        work_dir = settings.work_dir
        warehouse = chosen.warehouse or f"file://{work_dir / 'warehouse'}"
        if chosen.catalog == "sql" and chosen.uri is None:
            work_dir.mkdir(parents=True, exist_ok=True)
        uri = chosen.uri or f"sqlite:///{work_dir / 'catalog.db'}"
        properties = {"type": chosen.catalog, "uri": uri, "warehouse": warehouse, **chosen.properties}
        try:
            return cls(load_catalog("reel", **properties))
        except Exception as error:  # noqa: BLE001 - every driver has failures of its own, and each means the same here
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LakehouseError(
                f"the Iceberg catalog at {uri} cannot be opened: {reason}; check lakehouse.catalog and lakehouse.uri"
            ) from None

    def table(self, spec: TableSpec) -> Table:
        """The table, made on first use; columns that the declaration has gained are added."""
        try:
            table = self.catalog.load_table(spec.name)
        except NoSuchTableError:
            return self._create(spec)
        missing = [name for name in spec.schema.names if name not in table.schema().column_names]
        if missing:
            with table.update_schema() as update:
                update.union_by_name(spec.schema)
            table = self.catalog.load_table(spec.name)
        return table

    def existing(self, name: str) -> Table | None:
        """The table if it was ever made."""
        try:
            return self.catalog.load_table(name)
        except NoSuchTableError:
            return None

    def _create(self, spec: TableSpec) -> Table:
        namespace = spec.name.split(".")[0]
        with suppress(NamespaceAlreadyExistsError):  # an earlier run made it, or one beside this
            self.catalog.create_namespace(namespace)
        with (
            suppress(TableAlreadyExistsError, CommitFailedException),  # a run beside this one made it first
            self.catalog.create_table_transaction(spec.name, schema=spec.schema, properties=_TABLE_PROPERTIES) as new,
            new.update_spec() as partition,
        ):
            for column, transform in spec.partition:
                suffix = transform.split("[")[0]
                partition.add_field(column, parse_transform(transform), f"{column}_{suffix}")
        return self.catalog.load_table(spec.name)


@dataclass(frozen=True)
class TableFiles:
    """What a Ray task needs to read and write a table's files: no catalog, so it travels."""

    metadata: TableMetadata
    io: FileIO

    @classmethod
    def of(cls, table: Table) -> "TableFiles":
        """The table as it is now."""
        return cls(table.metadata, table.io)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The table's columns as Arrow types."""
        return self.metadata.schema().as_arrow()


def write_files(table: TableFiles, rows: pa.Table) -> list[DataFile]:
    """Write `rows` as data files of `table`, uncommitted: invisible until `commit_files` names them.

    Columns are matched by name; one that `rows` lacks is null. Safe from any Ray task.
    """
    if rows.num_rows == 0:
        return []
    wanted = table.arrow_schema
    columns = [
        _cast(rows[field.name], field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in wanted
    ]
    aligned = pa.Table.from_arrays(columns, schema=wanted)
    return list(_dataframe_to_data_files(table.metadata, aligned, table.io))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_map(kind):
        return column.cast(kind)
    # Arrow aborts the process when a cast changes the type of a map's keys (25.0), so the map is put together anew.
    maps = column.combine_chunks()
    maps = maps.chunk(0) if isinstance(maps, pa.ChunkedArray) else maps
    keys, items = maps.keys.cast(kind.key_type), maps.items.cast(kind.item_type)
    mask = maps.is_null() if maps.null_count else None
    return pa.MapArray.from_arrays(maps.offsets, keys, items, type=kind, mask=mask)


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
