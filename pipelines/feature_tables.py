"""The tables of the offline store: what each holds, in which files, and what it was last built from.

    features.{group}_by_{entity}          tiles of an event group, else the values at boundaries
    features.{group}_by_{entity}_tiles    tiles of an hourly or daily group, from which its values are made

Both are cut by the bucket of the entity, and within a bucket by weeks: a file holds one week of one bucket, sorted by
entity and time. So what changed is replaced week by week, and whoever reads a stretch of time opens its files only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from features.columns import milliseconds
from features.declarations import TILE_START, FeatureGroup
from features.source import EVENT_TIME
from features.windows import DAY_MS, Cadence, floor_ms
from pipelines.lakehouse import tables
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import live_files, lower_instant_ms, upper_instant_ms
from pipelines.point_in_time.stored import read_file

WEEK_MS = 7 * DAY_MS


@dataclass(frozen=True)
class Target:
    """What is stored of a group for one of its entities."""

    group: FeatureGroup
    entity: str

    @property
    def name(self) -> str:
        """The Iceberg table's name."""
        return f"features.{self.group.stored_as(self.entity)}"

    @property
    def has_boundaries(self) -> bool:
        """Whether values at boundaries are stored besides the tiles."""
        return self.group.cadence is not Cadence.EVENT

    def spec(self, buckets: int) -> tables.TableSpec:
        """The table that is read: tiles for groups valued at every event, boundary rows for the others."""
        schema = self.group.row_schema(self.entity) if self.has_boundaries else self.group.tile_schema(self.entity)
        return self._spec(self.name, schema, buckets)

    def tile_spec(self, buckets: int) -> tables.TableSpec:
        """The table of tiles."""
        name = f"{self.name}_tiles" if self.has_boundaries else self.name
        return self._spec(name, self.group.tile_schema(self.entity), buckets)

    def _spec(self, name: str, schema: pa.Schema, buckets: int) -> tables.TableSpec:
        stored = pa.schema([pa.field(f.name, tables.stored_type(f.type)) for f in schema])
        return tables.TableSpec(name, stored, ((self.entity, f"bucket[{buckets}]"),))


@dataclass(frozen=True)
class Built:
    """What a table was last built from, as its newest commit recorded it.

    `inputs`: snapshots of what was read; `declared`: what the values mean; `store`: the online store that was filled;
    `published_ms`: the last boundary; `newest_ms`: the newest event; `decided_ms`: as of when consent was asked for.
    """

    inputs: Mapping[str, int]
    declared: str
    store: str
    newest_ms: int
    decided_ms: int
    published_ms: int | None = None

    @classmethod
    def of(cls, table: Table) -> "Built | None":
        """None if the table was never built, or in another way than today's."""
        record = progress_of(table)
        try:
            return cls(**{name: record[name] for name in cls.__dataclass_fields__})
        except KeyError:
            return None

    def record(self, group: FeatureGroup, followed: Sequence[str]) -> dict[str, Any]:
        """As it is recorded: with the declaration's fingerprint, and the tables of which new rows will be asked for."""
        sources = {name: snapshot for name, snapshot in self.inputs.items() if name in followed}
        said = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**said, "fingerprint": group.fingerprint.hex(), "sources": sources}


def declared(group: FeatureGroup) -> str:
    """What differs as soon as rows would have other values, or there would be others."""
    return f"{group.fingerprint.hex()} {group.ttl_ms} {group.delay}"


@dataclass(frozen=True)
class StoredFile:
    """A file, and the first and last instant of what it holds."""

    file: DataFile
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Stored:
    """A table's files as they were when it was opened, by bucket, to be read and written in Ray tasks."""

    table: TableFiles
    schema: pa.Schema
    time: str
    by_bucket: Mapping[int, tuple[StoredFile, ...]]

    @classmethod
    def of(cls, table: Table, schema: pa.Schema) -> "Stored":
        """Rows of `schema`, timed by the start of a tile or by a boundary."""
        time = TILE_START if TILE_START in schema.names else EVENT_TIME
        by_bucket: dict[int, list[StoredFile]] = {}
        for file in live_files(table):
            first_ms, last_ms = lower_instant_ms(table, file, time), upper_instant_ms(table, file, time)
            assert first_ms is not None, "a file without rows is never written"
            assert last_ms is not None
            by_bucket.setdefault(file.partition[0], []).append(StoredFile(file, first_ms, last_ms))
        return cls(TableFiles.of(table), schema, time, {one: tuple(files) for one, files in by_bucket.items()})

    def files(self, bucket: int) -> tuple[StoredFile, ...]:
        """Of one bucket."""
        return self.by_bucket.get(bucket, ())

    def read(self, files: Sequence[StoredFile]) -> pa.Table:
        """Rows of some files, in the schema's types."""
        return pa.concat_tables([self.schema.empty_table(), *(self._read(one.file.file_path) for one in files)])

    def write(self, rows: pa.Table) -> list[DataFile]:
        """Write rows of one bucket, sorted by entity, as files of a week each."""
        weeks = floor_ms(milliseconds(rows[self.time]), WEEK_MS)
        return [
            file for week in np.unique(weeks) for file in write_files(self.table, rows.filter(pa.array(weeks == week)))
        ]

    def _read(self, path: str) -> pa.Table:
        return pa.table(read_file(self.table, path, self.schema).columns, schema=self.schema)


def overlapping(files: Sequence[StoredFile], start_ms: int, end_ms: int) -> Iterator[StoredFile]:
    """The files that may hold something in `[start, end)`."""
    return (one for one in files if one.first_ms < end_ms and one.last_ms >= start_ms)
