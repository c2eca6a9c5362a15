"""Data files of a table: written from any Ray task, invisible until a commit names them.

pyiceberg's own writer gives every file every column of the table, and scans all rows once for each partition. Bronze
has hundreds of columns of which an event has thirty, so a file here holds only the columns that have a value in it
(Iceberg reads a missing one as null, by field id), and rows are cut into partitions by one sort.

A file holds nothing of a row that is not in it: of dictionary-encoded columns only the values that its rows have. The
columns that say whose a row is have Bloom filters, so that a person is found without reading everybody's rows.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.io.pyarrow import (
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionFieldValue, PartitionKey
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import DayTransform, HourTransform
from pyiceberg.typedef import Record

from features.distinct import compacted, encoded, with_compacted_texts
from pipelines.lakehouse.bloom import FALSE_POSITIVES
from pipelines.lakehouse.catalog import LakehouseError
from pipelines.lakehouse.tables import PERSON_COLUMNS

ROWS_PER_ROW_GROUP = 131_072
_MILLISECONDS = {HourTransform: 3_600_000, DayTransform: 86_400_000}
# Different in every row, so that a dictionary would be built only to be given up.
DISTINCT_COLUMNS = {"event_id", "trace_id", "offset"}

_StatisticsPlan = tuple[dict[int, StatisticsCollector], dict[str, int]]


class StorageError(LakehouseError):
    """The warehouse took no data file."""

    passes = True

    def __init__(self, path: str, reason: OSError) -> None:
        said = os.strerror(reason.errno) if reason.errno else str(reason).partition("\n")[0]
        super().__init__(
            f"the warehouse took no data file ({said}: {path}); nothing of it was committed: give it room, or see to "
            "what it says, and run it again; it goes on from the last commit"
        )


@dataclass(frozen=True)
class TableFiles:
    """What a Ray task needs to read and write a table's files: no catalog, so it travels."""

    metadata: TableMetadata
    io: FileIO

    @classmethod
    def of(cls, table: Table) -> "TableFiles":
        """The table as it is now, without its history, which would make it long to travel."""
        past: dict[str, Any] = {"snapshots": [], "snapshot_log": [], "metadata_log": [], "refs": {}}
        return cls(table.metadata.model_copy(update=past | {"current_snapshot_id": None}), table.io)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The table's columns as Arrow types."""
        return self.metadata.schema().as_arrow()

    @cached_property
    def _typed(self) -> pa.Schema:
        """The table's columns as they are written: each with its Iceberg field id."""
        return schema_to_pyarrow(self.metadata.schema(), include_field_ids=True)

    @cached_property
    def _plans(self) -> dict[tuple[str, ...], _StatisticsPlan]:
        """By columns: to make a plan takes as long as to write a small file."""
        return {}

    def _statistics_of(self, columns: tuple[str, ...]) -> _StatisticsPlan:
        """Which statistics are kept of a file with these columns."""
        if columns not in self._plans:
            schema = self.metadata.schema().select(*columns)
            plan = compute_statistics_plan(schema, self.metadata.properties)
            self._plans[columns] = plan, parquet_path_to_id_mapping(schema)
        return self._plans[columns]


def write_files(table: TableFiles, rows: pa.Table) -> list[DataFile]:
    """Write `rows` as data files of `table`, uncommitted: invisible until `commit_files` names them.

    Columns are matched by name and cast to the table's type, dictionary-encoded ones too; one that `rows` lacks, or
    that is null throughout, is left out of the file and reads as null. Safe from any Ray task.
    """
    if rows.num_rows == 0:
        return []
    return [_write(table, key, part) for key, part in _partitions(table, _aligned(table, rows))]


def _aligned(table: TableFiles, rows: pa.Table) -> pa.Table:
    fields, columns = [], []
    for field in table._typed:
        if field.name not in rows.column_names:
            continue
        column = rows[field.name]
        if field.nullable and column.null_count == rows.num_rows:
            continue
        kind = field.type
        if pa.types.is_dictionary(column.type) and column.type.value_type == kind:
            field = field.with_type(column.type)
        elif column.type != kind:
            column = _cast(column, kind)
        fields.append(field)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _partitions(table: TableFiles, rows: pa.Table) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """`rows` cut by the table's partition spec; rows of one partition keep their order."""
    spec, schema = table.metadata.spec(), table.metadata.schema()
    if spec.is_unpartitioned():
        yield None, rows
        return
    names = [schema.find_column_name(field.source_id) for field in spec.fields]
    columns = [
        _transformed(table, field, rows[name] if name in rows.column_names else pa.nulls(rows.num_rows))
        for field, name in zip(spec.fields, names, strict=True)
    ]
    codes = np.zeros(rows.num_rows, dtype=np.int64)
    for column in columns:
        codes = codes * (len(column.dictionary) + 1) + np.asarray(column.indices.fill_null(len(column.dictionary)))
    present, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable") if len(present) > 1 else None
    ends = np.cumsum(np.bincount(inverse))
    for part, row in enumerate(first.tolist()):
        key = PartitionKey(
            [
                PartitionFieldValue(field, column[row].as_py())
                for field, column in zip(spec.fields, columns, strict=True)
            ],
            spec,
            schema,
        )
        start = int(ends[part - 1]) if part else 0
        yield key, rows if order is None else rows.take(pa.array(order[start : ends[part]]))


def _transformed(table: TableFiles, field: PartitionField, column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """The partition value of every row, dictionary-encoded, so that few values are ever touched in Python."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    width_ms = _MILLISECONDS.get(type(field.transform))
    if width_ms is not None:
        # The same floor division the transform makes, on whole columns.
        micros = whole.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        values = pa.array(np.asarray(micros) // (width_ms * 1000), pa.int32())
        return values.dictionary_encode()
    encoded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    source = table.metadata.schema().find_field(field.source_id).field_type
    changed = field.transform.pyarrow_transform(source)(encoded.dictionary)
    again = changed.dictionary_encode()  # two values may have become one, or a dictionary may hold one twice
    return pa.DictionaryArray.from_arrays(again.indices.take(encoded.indices), again.dictionary)


def _write(table: TableFiles, key: PartitionKey | None, rows: pa.Table) -> DataFile:
    # A file holds its dictionaries as they are: values of rows that were left out, or are in other files, must go.
    rows = with_compacted_texts(rows)
    metadata, properties = table.metadata, table.metadata.properties
    location = load_location_provider(metadata.location, properties)
    path = location.new_data_location(f"{uuid.uuid4()}.parquet", key)
    output = table.io.new_output(path)
    try:
        parquet = _write_parquet(output, rows, properties)
    except OSError as error:
        with suppress(OSError):  # it takes up room, and no table will name it
            table.io.delete(path)
        raise StorageError(path, error) from None
    statistics = data_file_statistics_from_parquet_metadata(parquet, *table._statistics_of(tuple(rows.column_names)))
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=key.partition if key is not None else Record(),
        file_size_in_bytes=len(output),
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    file.spec_id = metadata.default_spec_id  # no part of the record
    return file


def _write_parquet(output: OutputFile, rows: pa.Table, properties: Mapping[str, str]) -> pq.FileMetaData:
    """Write one file; what its footer says."""
    rows = _with_encoded(rows)
    starts = range(0, rows.num_rows, ROWS_PER_ROW_GROUP)
    filters = {
        name: {"ndv": _most_distinct(rows[name].chunk(0), starts), "fpp": FALSE_POSITIVES}
        for name in PERSON_COLUMNS
        if name in rows.column_names
    }
    with (
        output.create(overwrite=True) as stream,
        pq.ParquetWriter(
            stream,
            rows.schema,
            # Without Arrow's own schema a reader sees plain strings, however they were held here.
            store_schema=False,
            compression=properties.get("write.parquet.compression-codec", "zstd"),
            compression_level=int(properties.get("write.parquet.compression-level", "1")),
            use_dictionary=[
                field.name for field in rows.schema if _is_text(field.type) and field.name not in DISTINCT_COLUMNS
            ],
            bloom_filter_options=filters,
            write_page_index=False,
        ) as writer,
    ):
        for start in starts:
            writer.write_table(_only_its_own(rows.slice(start, ROWS_PER_ROW_GROUP)))
    return writer.writer.metadata


def _with_encoded(rows: pa.Table) -> pa.Table:
    """`rows` with the ids of people, and what is dictionary-encoded already, as dictionaries of one chunk."""
    for place, field in enumerate(rows.schema):
        if field.name in PERSON_COLUMNS or pa.types.is_dictionary(field.type):
            column = encoded(rows.column(place))
            rows = rows.set_column(place, field.with_type(column.type), column)
    return rows


def _most_distinct(column: pa.DictionaryArray, starts: range) -> int:
    """Distinct values of the row group that has most: what a filter must hold; every group's is of one size."""
    codes = np.asarray(column.indices.fill_null(len(column.dictionary)))
    counts = (np.count_nonzero(np.bincount(codes[start : start + starts.step])) for start in starts)
    return int(max(counts))


def _only_its_own(rows: pa.Table) -> pa.Table:
    """`rows` with dictionaries of their own values: all that is in a dictionary is written, and goes into a filter."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field, compacted(rows.column(place).chunk(0)))
    return rows


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    if not pa.types.is_map(kind):
        return column.cast(kind)
    # Arrow aborts the process when a cast changes the type of a map's keys (25.0), so the map is put together anew.
    maps = column.combine_chunks()
    maps = maps.chunk(0) if isinstance(maps, pa.ChunkedArray) else maps
    keys, items = maps.keys.cast(kind.key_type), maps.items.cast(kind.item_type)
    mask = maps.is_null() if maps.null_count else None
    return pa.MapArray.from_arrays(maps.offsets, keys, items, type=kind, mask=mask)
