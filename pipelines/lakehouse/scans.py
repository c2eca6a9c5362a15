"""Reading tables: which files, which rows, cut into which buckets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.files import DISTINCT_COLUMNS, TableFiles

Item = TypeVar("Item")
_ATTEMPTS = 4  # of reading a table while erasures write it anew


class SnapshotGoneError(LakehouseError):
    """A table is asked for as of a snapshot that it no longer has."""

    def __init__(self, table: str, snapshot_id: int) -> None:
        super().__init__(
            f"{table} no longer has snapshot {snapshot_id}: it has expired, so what was made from it cannot be made "
            "again; make it anew from what there is"
        )


class FileGoneError(LakehouseError):
    """A file that was to be read has been deleted since the run began to read its table."""

    passes = True

    def __init__(self, table: str) -> None:
        super().__init__(
            f"a file of {table} is gone: it was replaced while this run read it, by an erasure, which deletes at once, "
            "or long ago; run it again and it goes on from the last commit",
        )


class ExpiredSnapshotError(LakehouseError):
    """A station had read a table up to a snapshot that is gone."""

    def __init__(self, table: str, snapshot_id: int) -> None:
        super().__init__(
            f"{table}: snapshot {snapshot_id}, up to which it had been read, is no longer in its history, so what came "
            "after it cannot be told; drop the tables that were made from it and make them again"
        )


def scan_tasks(table: Table, row_filter: BooleanExpression | None = None) -> list[FileScanTask]:
    """The files of the current snapshot that may hold rows of `row_filter`."""
    if table.current_snapshot() is None:
        return []
    return list(table.scan(row_filter=row_filter or AlwaysTrue()).plan_files())


def snapshot_of(table: Table, snapshot_id: int | None) -> Snapshot | None:
    """One of the table's snapshots, the current one unless an id is given. Raises SnapshotGoneError."""
    if snapshot_id is None:
        return table.current_snapshot()
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise SnapshotGoneError(".".join(table.name()), snapshot_id)
    return snapshot


def live_files(table: Table, snapshot_id: int | None = None) -> list[DataFile]:
    """The data files of the current snapshot, or of a given one, straight from its manifests.

    Raises SnapshotGoneError.
    """
    snapshot = snapshot_of(table, snapshot_id)
    manifests = snapshot.manifests(table.io) if snapshot is not None else []
    return [
        entry.data_file
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    ]


def appended_files(table: Table, after_snapshot: int | None) -> list[DataFile]:
    """The data files appended after snapshot `after_snapshot`; all there are when it is None.

    Only appends bring rows: snapshots of maintenance (`replace`, `overwrite`, `delete`) put the same rows elsewhere,
    or take some away. Raises ExpiredSnapshotError when the snapshot is no longer in the table's history, because then
    nobody can say what came after it.
    """
    if after_snapshot is None:
        return live_files(table)
    found: list[DataFile] = []
    for snapshot in snapshots_after(table, after_snapshot):
        if snapshot.summary is None or snapshot.summary.operation != Operation.APPEND:
            continue
        for manifest in snapshot.manifests(table.io):
            if manifest.content != ManifestContent.DATA or manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            found += [
                entry.data_file
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id
            ]
    return found


def snapshots_after(table: Table, after_snapshot: int) -> list[Snapshot]:
    """The snapshots from the current one back to `after_snapshot`, which is left out.

    Raises ExpiredSnapshotError when that is no longer in the table's history.
    """
    newer: list[Snapshot] = []
    snapshot = table.current_snapshot()
    while snapshot is not None and snapshot.snapshot_id != after_snapshot:
        newer.append(snapshot)
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    if snapshot is None:
        raise ExpiredSnapshotError(".".join(table.name()), after_snapshot)
    return newer


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
    """Rows of `tasks`, with `columns` only when given. Safe from any Ray task.

    Of one type for each column, whichever files it comes from: pyiceberg gives a text that a file has as a string, and
    one that it lacks as a large string.
    """
    schema = table.metadata.schema() if columns is None else table.metadata.schema().select(*columns)
    with _found(table):
        rows = ArrowScan(table.metadata, table.io, schema, row_filter or AlwaysTrue()).to_table(tasks)
    for place, field in enumerate(rows.schema):
        plain = _plain(field.type)
        if plain != field.type:
            rows = rows.set_column(place, field.with_type(plain), rows.column(place).cast(plain))
    return rows


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without large offsets. Maps, which Arrow cannot cast, stay as they are."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def read_files(table: TableFiles, paths: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """`columns` of whole data files, texts kept as dictionaries where the file has them so. Safe from any Ray task.

    As Iceberg has it, a file's columns are known by their field ids: one that the file lacks is null, one of an older
    type is cast. What Iceberg's own scan does besides (delete files, row filters, partition values that are not in the
    file) is not needed of the tables made here, and costs more than the reading.
    """
    schema = table.metadata.schema()
    wanted = {schema.find_field(name).field_id: name for name in columns}
    return pa.concat_tables([_read_file(table, path, wanted) for path in paths])


def read_row_groups(table: TableFiles, path: str, row_groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """The same of some row groups of one file."""
    schema = table.metadata.schema()
    return _read_file(table, path, {schema.find_field(name).field_id: name for name in columns}, row_groups)


def read_portions(
    table: TableFiles, files: Sequence[FileScanTask], columns: Sequence[str], rows_at_once: int
) -> Iterator[pa.Table]:
    """`columns` of whole data files as `read_files` has them, in portions of about so many rows: several small files,
    or one row group of a file that has more.
    """
    for group in file_groups(files, rows_at_once):
        paths = [task.file.file_path for task in group]
        if sum(task.file.record_count for task in group) <= rows_at_once:
            yield read_files(table, paths, columns)
            continue
        for path in paths:
            with _found(table), table.io.new_input(path).open() as stream:
                row_groups = pq.read_metadata(stream).num_row_groups
            for one in range(row_groups):
                yield read_row_groups(table, path, [one], columns)


def columns_by_id(metadata: pq.FileMetaData) -> dict[int, str]:
    """What a file calls its columns, by their Iceberg field ids."""
    named = {_field_id(field): field.name for field in metadata.schema.to_arrow_schema()}
    return {number: name for number, name in named.items() if number is not None}


def _read_file(
    table: TableFiles, path: str, wanted: Mapping[int, str], row_groups: Sequence[int] | None = None
) -> pa.Table:
    with _found(table), table.io.new_input(path).open() as stream:
        metadata = pq.read_metadata(stream)
        schema = metadata.schema.to_arrow_schema()
        present = {_field_id(field): field for field in schema}
        stored = {present[one].name: name for one, name in wanted.items() if one in present}
        texts = [name for name in stored if _is_kept_encoded(name, schema.field(name).type)]
        parquet = pq.ParquetFile(stream, metadata=metadata, read_dictionary=texts)
        groups = range(metadata.num_row_groups) if row_groups is None else row_groups
        rows = parquet.read_row_groups(groups, columns=list(stored), use_threads=False)
    rows = rows.rename_columns([stored[name] for name in rows.column_names])
    read = []
    for name in wanted.values():
        kind = table.arrow_schema.field(name).type
        kind = pa.dictionary(pa.int32(), pa.string()) if _is_kept_encoded(name, kind) else kind
        column = rows[name] if name in rows.column_names else pa.chunked_array([pa.nulls(len(rows), kind)])
        read.append(column if column.type == kind else column.cast(kind))
    return pa.table(read, names=list(wanted.values()))


@contextmanager
def _found(table: TableFiles) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileGoneError(table.metadata.location.rpartition("/warehouse/")[2].replace("/", ".")) from None


def _field_id(field: pa.Field) -> int | None:
    number = (field.metadata or {}).get(b"PARQUET:field_id")
    return int(number) if number is not None else None


def _is_kept_encoded(name: str, kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text and name not in DISTINCT_COLUMNS


def read_all(table: Table | None, empty: pa.Schema) -> pa.Table:
    """A small table (registries, titles) whole.

    Raises FileGoneError when erasures, which delete at once what they write anew, were faster again and again.
    """
    for _ in range(_ATTEMPTS):
        if table is None or table.current_snapshot() is None:
            return empty.empty_table()
        try:
            return read_tasks(TableFiles.of(table), scan_tasks(table), empty.names).cast(empty)
        except (FileNotFoundError, FileGoneError):  # the first of a manifest, the second of a data file
            table = table.catalog.load_table(table.name())
    assert table is not None, "it was loaded a moment ago"
    raise FileGoneError(".".join(table.name()))


def read_snapshot(table: Table | None, snapshot_id: int | None, empty: pa.Schema) -> pa.Table:
    """A small table whole, as of one of its snapshots; no row as of None. Raises SnapshotGoneError."""
    if table is None or snapshot_id is None:
        return empty.empty_table()
    snapshot_of(table, snapshot_id)
    tasks = list(table.scan(snapshot_id=snapshot_id).plan_files())
    return read_tasks(TableFiles.of(table), tasks, empty.names).cast(empty)


def bucket_of(keys: pa.ChunkedArray | pa.Array, buckets: int) -> np.ndarray:
    """The bucket of each key, shape (n,): Iceberg's own bucket transform, so that files on disk and rows in flight
    are cut alike. A null key has none: -1.
    """
    strings = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    if pa.types.is_dictionary(strings.type):
        of_values = bucket_of(strings.dictionary.cast(pa.string()), buckets)
        of_rows: np.ndarray = np.append(of_values, -1)[np.asarray(strings.indices.fill_null(-1))]
        return of_rows
    cut = BucketTransform(buckets).pyarrow_transform(StringType())(strings)
    found: np.ndarray = cut.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def by_bucket(rows: pa.Table, key: str, buckets: int) -> list[pa.Table]:
    """`rows` cut by the bucket of their key; rows without a key are left out."""
    return cut_by(rows, bucket_of(rows[key], buckets), buckets)


def cut_by(rows: pa.Table, bucket: np.ndarray, buckets: int) -> list[pa.Table]:
    """`rows` cut by the number of the bucket of each, in one pass however many there are; -1 is left out."""
    return list(cut_apart(rows, bucket, buckets))


def cut_apart(rows: pa.Table, bucket: np.ndarray, buckets: int) -> Iterator[pa.Table]:
    """`cut_by`, one part after the other: who is done with each before the next one holds no part twice."""
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(buckets + 1))
    whole = rows.combine_chunks()
    return (whole.take(pa.array(order[start:end])) for start, end in pairwise(edges))


def scan_of_bucket(files: Sequence[FileScanTask], bucket: int) -> list[FileScanTask]:
    """The files of one bucket, of a table that is partitioned by nothing else."""
    return [task for task in files if task.file.partition[0] == bucket]


def newest_event_ms(table: Table | None) -> int | None:
    """The latest event_timestamp in the table, from its files' bounds alone; None for an empty table."""
    if table is None:
        return None
    bounds = [upper_instant_ms(table, file, "event_timestamp") for file in live_files(table)]
    return max((bound for bound in bounds if bound is not None), default=None)


def upper_instant_ms(table: Table, file: DataFile, column: str) -> int | None:
    """The latest instant of a column in `file`; None where the file does not say."""
    return _instant_ms((file.upper_bounds or {}).get(table.schema().find_field(column).field_id))


def lower_instant_ms(table: Table, file: DataFile, column: str) -> int | None:
    """The first instant of a column in `file`; None where the file does not say."""
    return _instant_ms((file.lower_bounds or {}).get(table.schema().find_field(column).field_id))


def _instant_ms(bound: bytes | None) -> int | None:
    # Iceberg keeps bounds in its binary form of single values: of a timestamp, little-endian microseconds.
    return int.from_bytes(bound, "little", signed=True) // 1000 if bound is not None else None


def row_count(table: Table | None) -> int:
    """Rows of the current snapshot, from its metadata alone."""
    snapshot = table.current_snapshot() if table is not None else None
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary.additional_properties.get("total-records", "0"))


def file_groups(tasks: Iterable[FileScanTask], rows_per_group: int) -> Iterator[list[FileScanTask]]:
    """Files gathered into groups of about `rows_per_group` rows, so that many small ones make few tasks."""
    return in_groups(tasks, lambda task: task.file.record_count, rows_per_group)


def in_groups(items: Iterable[Item], rows_of: Callable[[Item], int], rows_per_group: int) -> Iterator[list[Item]]:
    """`items` in their order, in groups of at most `rows_per_group` rows, or of one item that has more."""
    group: list[Item] = []
    rows = 0
    for item in items:
        if group and rows + rows_of(item) > rows_per_group:
            yield group
            group, rows = [], 0
        group.append(item)
        rows += rows_of(item)
    if group:
        yield group
