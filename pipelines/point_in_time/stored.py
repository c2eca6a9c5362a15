"""Where values come from: tables cut by the bucket of their entity, of which a task reads its own buckets' files.

rows    values at boundaries (hourly and daily groups)
tiles   states of stretches of time (event groups): valued at the last tile boundary before the instant
log     events in (entity, time) order (event groups): valued exactly at the instant
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform

from features.columns import codes_in, encode
from features.declarations import CREATED, LAST_EVENT, TILE_LENGTH, TILE_START, FeatureGroup
from features.point_in_time import BoundaryRows
from features.selection import Selection
from features.sorted_log import SortedLog, columns_read
from features.source import EVENT_TIME
from features.tiles import timeline_of_whole_tiles
from features.windows import Int64s, valued_at_ms
from pipelines.errors import ReelError
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, upper_instant_ms


class Kind(StrEnum):
    """What a stored table holds."""

    ROWS = "rows"
    TILES = "tiles"
    LOG = "log"


class NotBucketedError(ReelError):
    """A table is not cut as its readers expect."""


@dataclass(frozen=True)
class BucketedTable:
    """A table's files by bucket, as they were when it was opened."""

    name: str
    table: TableFiles
    paths: tuple[tuple[str, ...], ...]
    snapshot_id: int | None
    newest_ms: int | None
    """The latest `event_timestamp` in it, if it has that column."""

    @classmethod
    def of(cls, table: Table, snapshot_id: int | None = None) -> "BucketedTable":
        """The table's current snapshot, or a given one.

        Raises:
            NotBucketedError: it is not partitioned by one bucket alone.
            SnapshotGoneError: it has that snapshot no more.
        """
        name = ".".join(table.name())
        transforms = [field.transform for field in table.spec().fields]
        if len(transforms) != 1 or not isinstance(transforms[0], BucketTransform):
            raise NotBucketedError(f"{name} is not partitioned by the bucket of its entity; build it again")
        files: list[DataFile] = live_files(table, snapshot_id)
        buckets = range(transforms[0].num_buckets)
        paths = tuple(tuple(sorted(file.file_path for file in files if file.partition[0] == b)) for b in buckets)
        has_times = EVENT_TIME in table.schema().column_names
        bounds = [upper_instant_ms(table, file, EVENT_TIME) for file in files] if has_times else []
        newest_ms = max((bound for bound in bounds if bound is not None), default=None)
        read = table.metadata.current_snapshot_id if snapshot_id is None else snapshot_id
        return cls(name, TableFiles.of(table), paths, read, newest_ms)

    @property
    def buckets(self) -> int:
        """Into how many buckets it is cut."""
        return len(self.paths)

    def read(self, bucket: int, entity: str, schema: pa.Schema) -> pa.Table:
        """One bucket's rows: the entity as a dictionary, then the schema's columns, in its types where they matter.

        Columns that a file lacks are null in it. Texts cost most of the reading, so the entity's stays encoded.
        """
        read = [read_file(self.table, path, schema, encoded=entity) for path in self.paths[bucket]]
        kind = pa.dictionary(pa.int32(), pa.string())
        return pa.concat_tables(read) if read else pa.schema([(entity, kind), *schema]).empty_table()


@dataclass(frozen=True)
class Asked:
    """Rows that ask one bucket: whose values, by place in `keys`, and as of when; [n] each."""

    keys: pa.Array
    owners: Int64s
    asked_ms: Int64s

    @classmethod
    def of(cls, keys: pa.Array | pa.ChunkedArray, asked_ms: Int64s) -> "Asked":
        """From a column of keys, best a dictionary column."""
        distinct, owners = encode(keys)
        return cls(distinct, owners, asked_ms)

    def owners_in(self, entities: pa.Array) -> Int64s:
        """Place of each row's key in `entities`; -1 where it is not there."""
        return np.append(codes_in(self.keys, entities), -1)[self.owners]


class Answering(Protocol):
    """What answers the rows that ask one bucket of a stored table: features, or labels."""

    @property
    def name(self) -> str:
        """What it is called in counts."""

    @property
    def stored(self) -> BucketedTable:
        """Where the answers are read."""

    @property
    def fields(self) -> list[pa.Field]:
        """Columns of the result that it gives."""

    def late(self, asked_ms: Int64s) -> int:
        """How many of these instants come too late for what is stored."""

    def values(self, bucket: int, asked: Asked) -> dict[str, pa.Array]:
        """Column of the result to values, row for row of what is asked of a bucket."""


@dataclass(frozen=True)
class Source:
    """What is selected of one stored table: one group's rows or tiles, or a log and all groups that read it."""

    kind: Kind
    stored: BucketedTable
    selections: tuple[Selection, ...]
    declared: FeatureGroup  # the first group as it is declared, with all its features

    @property
    def entity(self) -> str:
        """Whose values they are."""
        return self.selections[0].entity

    @property
    def name(self) -> str:
        """The first group, as it was asked for."""
        return self.selections[0].name

    @property
    def fields(self) -> list[pa.Field]:
        """The features' columns, and each group's age."""
        fields = []
        for one in self.selections:
            kinds = {**dict(zip(one.group.feature_schema().names, one.group.feature_schema().types, strict=True)),
                     one.group.age_column: pa.int64()}  # fmt: skip
            fields += [pa.field(to, kinds[name]) for name, to in one.columns.items()]
        return fields

    def late(self, asked_ms: Int64s) -> int:
        """How many of these instants want a boundary after the last that is built: they get the last one's values."""
        if self.kind is not Kind.ROWS or self.stored.newest_ms is None:
            return 0
        boundaries = valued_at_ms(asked_ms, self.declared.cadence, self.declared.delay)
        return int((boundaries > self.stored.newest_ms).sum())

    def values(self, bucket: int, asked: Asked) -> dict[str, pa.Array]:
        """Column of the result to values, row for row of what is asked of a bucket."""
        groups = [one.group for one in self.selections]
        tables = _READERS[self.kind](self, groups, bucket, asked)
        return {
            to: table[name].combine_chunks()
            for one, table in zip(self.selections, tables, strict=True)
            for name, to in one.columns.items()
        }


def _from_rows(source: Source, groups: Sequence[FeatureGroup], bucket: int, asked: Asked) -> list[pa.Table]:
    (group,) = groups
    times = [group.row_schema(source.entity).field(name) for name in (EVENT_TIME, CREATED, LAST_EVENT)]
    schema = pa.schema([*(pa.field(one.name, STORED_TIME) for one in times), *group.feature_schema()])
    rows = BoundaryRows.of(group, source.entity, source.stored.read(bucket, source.entity, schema))
    return [rows.values_of(asked.owners_in(rows.entities), asked.asked_ms)]


def _from_tiles(source: Source, groups: Sequence[FeatureGroup], bucket: int, asked: Asked) -> list[pa.Table]:
    (group,) = groups
    times = [pa.field(TILE_LENGTH, pa.int64()), pa.field(TILE_START, STORED_TIME), pa.field(LAST_EVENT, STORED_TIME)]
    schema = pa.schema([*times, *((state.name, state.arrow_type) for state in group.states)])
    tiled = source.stored.read(bucket, source.entity, schema)
    shortest_ms = min(source.declared.states_of_tile)
    timeline = timeline_of_whole_tiles(group, *encode(tiled[source.entity]), tiled, shortest_ms)
    return [timeline.values_of(asked.owners_in(timeline.entities), asked.asked_ms)]


def _from_log(source: Source, groups: Sequence[FeatureGroup], bucket: int, asked: Asked) -> list[pa.Table]:
    names = [name for name in columns_read(groups, source.entity) if name != source.entity]
    declared = [groups[0].source.schema.field(name) for name in names]
    schema = pa.schema([field.with_type(STORED_TIME) if field.name == EVENT_TIME else field for field in declared])
    events = SortedLog.of(groups, source.entity, source.stored.read(bucket, source.entity, schema))
    return events.values_of(groups, asked.owners_in(events.entities), asked.asked_ms)


STORED_TIME = pa.timestamp("us", tz="UTC")
_READERS = {Kind.ROWS: _from_rows, Kind.TILES: _from_tiles, Kind.LOG: _from_log}


def read_file(table: TableFiles, path: str, schema: pa.Schema, *, encoded: str | None = None) -> pa.Table:
    """A file's rows in the schema's types; columns that it lacks are null.

    The column `encoded`, which the schema leaves out, comes first, its texts as a dictionary.
    """
    first = [encoded] if encoded else []
    with table.io.new_input(path).open() as stream, pq.ParquetFile(stream, read_dictionary=first) as file:
        present = [field.name for field in schema if field.name in file.schema_arrow.names]
        rows = file.read(columns=[*first, *present], use_threads=False)
    columns = [rows[name] for name in first]
    for field in schema:
        has_it = field.name in present
        column = (
            as_type(rows[field.name], field.type) if has_it else pa.chunked_array([pa.nulls(len(rows), field.type)])
        )
        columns.append(column)
    return pa.table(columns, names=[*first, *schema.names])


def as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in another type of the same meaning."""
    if column.type == kind:
        return column
    if not pa.types.is_map(kind):
        return column.cast(kind)
    # Arrow aborts the process when a cast changes the type of a map's keys (25.0), so the map is put together anew.
    chunks = []
    for maps in column.chunks:
        keys, items = maps.keys.cast(kind.key_type), maps.items.cast(kind.item_type)
        chunks.append(pa.MapArray.from_arrays(maps.offsets, keys, items, type=kind, mask=_mask(maps)))
    return pa.chunked_array(chunks, kind)


def _mask(maps: pa.MapArray) -> pa.Array | None:
    return maps.is_null() if maps.null_count else None
