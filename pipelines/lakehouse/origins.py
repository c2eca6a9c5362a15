"""Which messages a table holds already: bounds of its files first, then only those files that may hold them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, read_files, string_bounds

ORIGIN = ("cluster_id", "topic", "partition", "offset")
_INT64 = np.iinfo(np.int64)
_LONGEST = b"\xff"  # above every topic's name, which is ASCII


@dataclass(frozen=True)
class Origins:
    """The origins (cluster, topic, partition, offset) of a table's rows. Travels to Ray tasks.

    Of every file that may hold some of `topics`: its path, the least and greatest topic (bytes, cut short as Iceberg
    keeps them), and [least, greatest] of partition, offset and event_timestamp, int64[files, 3, 2].
    """

    table: TableFiles
    paths: list[str]
    topics: list[tuple[bytes, bytes]]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table, topics: Iterable[str]) -> "Origins":
        """Those of the current snapshot, from its manifests alone."""
        wanted = sorted(topic.encode() for topic in topics)
        found = [(file, _topics(table, file)) for file in live_files(table)]
        kept = [(file, low, high) for file, (low, high) in found if any(low <= topic <= high for topic in wanted)]
        columns = ("partition", "offset", "event_timestamp")
        bounds = [[_bounds(table, file, column) for column in columns] for file, _, _ in kept]
        return cls(
            TableFiles.of(table),
            [file.file_path for file, _, _ in kept],
            [(low, high) for _, low, high in kept],
            np.array(bounds, np.int64).reshape(-1, len(columns), 2),
        )

    def hold(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Whether each of `rows`, which have the columns of `ORIGIN` and event_timestamp, is in the table."""
        held: set[tuple[object, ...]] = set()
        offsets = rows["offset"].combine_chunks()
        for path in self._candidates(rows):
            stored = read_files(self.table, [path], ORIGIN)
            held.update(_origins(stored.filter(pc.is_in(stored["offset"], value_set=offsets))))
        return np.array([origin in held for origin in _origins(rows)], bool)

    def _candidates(self, rows: pa.Table) -> list[str]:
        """Files whose bounds have room for one of `rows`."""
        may_hold = np.zeros(len(self.paths), bool)
        instants = np.asarray(rows["event_timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()))
        partitions, offsets = np.asarray(rows["partition"]), np.asarray(rows["offset"])
        for topic in pc.unique(rows["topic"]).to_pylist():
            of_topic = np.array([low <= topic.encode() <= high for low, high in self.topics], bool)
            is_topic = np.asarray(pc.equal(rows["topic"], topic))
            for partition in np.unique(partitions[is_topic]):
                at = is_topic & (partitions == partition)
                may_hold |= of_topic & self._overlap(partition, np.sort(offsets[at]), np.sort(instants[at]))
        return [self.paths[number] for number in np.flatnonzero(may_hold)]

    def _overlap(self, partition: int, *columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Files that span the partition, and some value of each sorted column."""
        overlap: NDArray[np.bool_] = (self.bounds[:, 0, 0] <= partition) & (partition <= self.bounds[:, 0, 1])
        for number, values in enumerate(columns, start=1):
            low, high = self.bounds[:, number, 0], self.bounds[:, number, 1]
            overlap &= np.searchsorted(values, low, side="left") < np.searchsorted(values, high, side="right")
        return overlap


def _origins(rows: pa.Table) -> Iterator[tuple[object, ...]]:
    return zip(*(rows[name].to_pylist() for name in ORIGIN), strict=True)


def _topics(table: Table, file: DataFile) -> tuple[bytes, bytes]:
    return string_bounds(table, file, "topic") or (b"", _LONGEST)


def _bounds(table: Table, file: DataFile, column: str) -> Sequence[int]:
    """The least and greatest value of a whole-number column; all there are where the file does not say."""
    field_id = table.schema().find_field(column).field_id
    bounds = ((file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id))
    # Iceberg keeps bounds in its binary form of single values: little-endian, of instants microseconds.
    return [
        int(unknown) if bound is None else int.from_bytes(bound, "little", signed=True)
        for bound, unknown in zip(bounds, (_INT64.min, _INT64.max), strict=True)
    ]
