"""Data files of a table: written from any Ray task, invisible until a commit names them."""

from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata


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
