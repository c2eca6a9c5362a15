"""Where a person's rows are: the few files of a table that can hold them, and the rows themselves.

    1. the table's manifests leave out files by the bucket of their partition, and by the bounds of an id column
    2. footers, read side by side, leave out row groups by the bounds and the nulls that they state
    3. Bloom filters leave out nearly all row groups that are left, but for about 1 in 10,000 for each id

What is left out holds no row of the person for certain. A row group that has no Bloom filter, because it was written
before there were any, may hold anyone and is read; compaction gives filters to what it rewrites.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import InputStream
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform

from pipelines.lakehouse.bloom import BloomFilter, Hashes, hashes_of
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import bucket_of, columns_by_id, live_files, read_row_groups, string_bounds
from pipelines.lakehouse.tables import PERSON_COLUMNS
from pipelines.privacy.person import Person

FILES_AT_ONCE = 8


@dataclass(frozen=True)
class Found:
    """A file that can hold rows of the person, the row groups of it that can, and the columns that it has."""

    file: DataFile
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Whereabouts:
    """Of one table: the files that can hold rows of the person, of `total` files that it has."""

    table: Table
    files: tuple[Found, ...]
    total: int


def tables_of_people(lakehouse: Lakehouse) -> dict[str, Table]:
    """Every table with a column that may say whose a row is, by its name: whichever there are."""
    tables = {name: lakehouse.existing(name) for name in lakehouse.names()}
    return {name: table for name, table in tables.items() if table is not None and id_columns(table)}


def id_columns(table: Table) -> list[str]:
    """The columns of the table that may say whose a row is."""
    return [name for name in PERSON_COLUMNS if name in table.schema().column_names]


def whereabouts(table: Table, person: Person) -> Whereabouts:
    """The files of the table's current snapshot that can hold rows of the person, or of any of several."""
    files = live_files(table)
    sought = [_Sought(table, name, person.ids[name]) for name in id_columns(table) if name in person.ids]
    likely = [file for file in files if any(one.may_be_in(file) for one in sought)]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        looked_at = pool.map(lambda file: _look(table, file, sought), likely)
        return Whereabouts(table, tuple(found for found in looked_at if found.row_groups), len(files))


def rows_of(found: Whereabouts, person: Person, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The person's rows, file by file and without the files that have none; texts are dictionaries.

    Of `columns`, or else of those that the file has, in the table's types.
    """
    files = TableFiles.of(found.table)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        yield from (rows for rows in pool.map(lambda one: _rows(files, one, person, columns), found.files) if len(rows))


@dataclass(frozen=True, eq=False)
class _Sought:
    """The ids that are looked for in one column of a table, ascending."""

    table: Table
    column: str
    ids: Sequence[str]

    @cached_property
    def field_id(self) -> int:
        return self.table.schema().find_field(self.column).field_id

    @cached_property
    def hashes(self) -> Hashes:
        return hashes_of(self.ids)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [one.encode() for one in self.ids]

    @cached_property
    def _buckets(self) -> dict[int, tuple[int, set[int]]]:
        """Of each partition spec that is cut by the bucket of this column: where the bucket stands, and ours."""
        cut = {}
        for spec_id, spec in self.table.specs().items():
            for place, field in enumerate(spec.fields):
                if field.source_id == self.field_id and isinstance(field.transform, BucketTransform):
                    buckets = bucket_of(pa.array(self.ids, pa.string()), field.transform.num_buckets)
                    cut[spec_id] = place, set(buckets.tolist())
        return cut

    def may_be_in(self, file: DataFile) -> bool:
        """As far as the table's manifests tell."""
        if file.spec_id in self._buckets:
            place, buckets = self._buckets[file.spec_id]
            if file.partition[place] not in buckets:
                return False
        bounds = string_bounds(self.table, file, self.column)
        return bounds is None or bisect_left(self._bytes, bounds[0]) < bisect_right(self._bytes, bounds[1])

    def may_be_among(self, stream: InputStream, chunk: pq.ColumnChunkMetaData) -> bool:
        """As far as the file's footer and the chunk's Bloom filter tell."""
        statistics, first, last = chunk.statistics, 0, len(self.ids)
        if statistics is not None and statistics.has_null_count and statistics.null_count == chunk.num_values:
            return False
        if statistics is not None and statistics.has_min_max:
            first, last = bisect_left(self.ids, statistics.min), bisect_right(self.ids, statistics.max)
            if first == last:
                return False
        if chunk.bloom_filter_offset is None or chunk.bloom_filter_length is None:
            return True
        stream.seek(chunk.bloom_filter_offset)
        held = BloomFilter.parse(stream.read(chunk.bloom_filter_length))
        return held is None or held.may_hold_any(self.hashes[first:last])


def _look(table: Table, file: DataFile, sought: Sequence[_Sought]) -> Found:
    """The row groups of one file that can hold one of the ids."""
    names = {field.field_id: field.name for field in table.schema().fields}
    with table.io.new_input(file.file_path).open() as stream:
        metadata = pq.read_metadata(stream)
        stored = columns_by_id(metadata)
        places = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
        likely = [one for one in sought if one.field_id in stored and one.may_be_in(file)]
        groups = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if any(one.may_be_among(stream, group.column(places[stored[one.field_id]])) for one in likely):
                groups.append(number)
    return Found(file, tuple(groups), tuple(name for number, name in names.items() if number in stored))


def _rows(files: TableFiles, found: Found, person: Person, columns: Sequence[str] | None) -> pa.Table:
    """The person's rows of one file: all columns are read of the row groups only that have one."""
    path = found.file.file_path
    by_group = []
    for group in found.row_groups:
        ids = read_row_groups(files, path, [group], [name for name in person.ids if name in found.columns])
        theirs = person.mask(ids)
        if theirs.any():
            rows = read_row_groups(files, path, [group], found.columns if columns is None else columns)
            by_group.append(rows.take(pa.array(np.flatnonzero(theirs))))
    return pa.concat_tables(by_group) if by_group else pa.table({})
