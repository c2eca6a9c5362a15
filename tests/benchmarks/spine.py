"""Data for the point-in-time benchmark: a log, stored rows of three groups, and rows that ask about them.

Everything is made once, in Parquet, in Ray tasks; then it is sorted and cut by the bucket of the viewer, as Reel keeps
it, which is the one-time cost that the benchmark reports apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile

from features.aggregates import Count, Mean, Sum
from features.declarations import Feature, FeatureGroup, Source
from features.purposes import Purpose
from features.sorted_log import sort_log
from features.windows import DAY_MS, HOUR_MS, Cadence
from pipelines.cluster import run_tasks, shuffle
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import by_bucket
from pipelines.point_in_time.logs import spec_of
from pipelines.point_in_time.stored import BucketedTable

TIME = pa.timestamp("ms", tz="UTC")
START_MS, SPAN_DAYS = 1_704_067_200_000, 120
WINDOWS = (1, 7, 28)
ROWS_PER_FILE = 1_000_000
VIEWER = "viewer"
LOG = Source(
    "bench_log",
    pa.schema(
        [
            ("event_id", pa.string()),
            ("event_timestamp", TIME),
            (VIEWER, pa.string()),
            ("x", pa.int64()),
            ("y", pa.int64()),
        ]
    ),
)


def _group(name: str, cadence: Cadence, aggregate: Sum | Mean | Count) -> FeatureGroup:
    return FeatureGroup(
        name=name,
        entities=(VIEWER,),
        source=LOG,
        cadence=cadence,
        ttl_ms=400 * DAY_MS,
        purpose=Purpose.PERSONALIZATION,
        owner="benchmarks",
        description="One aggregate over three windows.",
        features=tuple(Feature(f"d{days}", aggregate, days * DAY_MS, "One.", "1", (0, 1e18)) for days in WINDOWS),
        delay_ms=2_000 if cadence is Cadence.EVENT else 0,
    )


AGGREGATES = {"watched": Sum("x"), "scored": Mean("y"), "seen": Count()}
EXACT = tuple(_group(name, Cadence.EVENT, aggregate) for name, aggregate in AGGREGATES.items())
STORED = tuple(_group(f"hourly_{name}", Cadence.HOURLY, aggregate) for name, aggregate in AGGREGATES.items())


@dataclass(frozen=True)
class Data:
    """Where everything lies."""

    folder: Path
    viewers: int
    buckets: int

    def make_log(self, events: int) -> None:
        """The log, in random order."""
        self._make("log", events, self._log_part)

    def make_rows(self, rows: int) -> None:
        """Stored rows of each hourly group, in random order: values at random hours, one a viewer and hour."""
        for place, group in enumerate(STORED):
            self._make(group.name, rows, lambda part, size, place=place: self._rows_part(part, size, place))

    def make_spine(self, rows: int) -> None:
        """Rows that ask, in random order in one file, and the same cut by bucket, a file a bucket."""
        rng = np.random.default_rng(1)
        spine = pa.table(
            {
                VIEWER: self._names().take(pa.array(rng.integers(0, self.viewers, rows))),
                "event_timestamp": _times(rng, rows),
                "row": np.arange(rows),
            }
        )
        pq.write_table(spine, self.folder / "spine.parquet", store_schema=False)
        (self.folder / "spine").mkdir()
        for number, part in enumerate(by_bucket(spine, VIEWER, self.buckets)):
            pq.write_table(part, self.folder / "spine" / f"bucket-{number:04d}.parquet", store_schema=False)

    def sort_log(self, lakehouse: Lakehouse) -> None:
        """The log as Reel keeps it: cut by bucket, each sorted by (viewer, time, id)."""
        table = lakehouse.table(spec_of(LOG, VIEWER, self.buckets))
        files = TableFiles.of(table)

        def sort(_: int, parts: Sequence[pa.Table]) -> list[DataFile]:
            return write_files(files, sort_log(LOG, VIEWER, pa.concat_tables(parts)))

        commit_files(table, self._shuffled("log", sort), {})

    def sort_rows(self, lakehouse: Lakehouse) -> None:
        """Stored rows as Reel keeps them: cut by bucket, each sorted by (viewer, boundary)."""
        for group in STORED:
            schema = pa.schema([pa.field(f.name, tables.stored_type(f.type)) for f in group.row_schema(VIEWER)])
            spec = tables.TableSpec(
                f"features.{group.stored_as(VIEWER)}", schema, ((VIEWER, f"bucket[{self.buckets}]"),)
            )
            table = lakehouse.table(spec)
            files = TableFiles.of(table)

            def sort(_: int, parts: Sequence[pa.Table], files: TableFiles = files) -> list[DataFile]:
                rows = pa.concat_tables(parts).sort_by([(VIEWER, "ascending"), ("event_timestamp", "ascending")])
                return write_files(files, rows)

            commit_files(table, self._shuffled(group.name, sort), {})

    def log_table(self, lakehouse: Lakehouse) -> BucketedTable:
        """The sorted log."""
        table = lakehouse.existing(f"features.{LOG.name}_by_{VIEWER}")
        assert table is not None
        return BucketedTable.of(table)

    def _shuffled(self, name: str, sort: object) -> list[DataFile]:
        buckets = self.buckets

        def split(path: Path) -> list[pa.Table]:
            return by_bucket(pq.read_table(path), VIEWER, buckets)

        paths = sorted((self.folder / name).iterdir())
        return [file for files in shuffle(paths, split, sort, buckets) for file in files]

    def _make(self, name: str, rows: int, part_of: object) -> None:
        (self.folder / name).mkdir()
        sizes = [min(ROWS_PER_FILE, rows - start) for start in range(0, rows, ROWS_PER_FILE)]

        def write(part: int) -> None:
            path = self.folder / name / f"part-{part:05d}.parquet"
            pq.write_table(part_of(part, sizes[part]), path, store_schema=False)

        for _ in run_tasks(write, range(len(sizes))):
            pass

    def _log_part(self, part: int, size: int) -> pa.Table:
        rng = np.random.default_rng([2, part])
        numbers = pa.array(np.arange(size) + part * ROWS_PER_FILE).cast(pa.string())
        return pa.table(
            {
                "event_id": pa.compute.binary_join_element_wise("evt", numbers, "_"),
                "event_timestamp": _times(rng, size),
                VIEWER: self._names().take(pa.array(rng.integers(0, self.viewers, size))),
                "x": rng.integers(0, 3_600_000, size),
                "y": rng.integers(0, 100, size),
            }
        )

    def _rows_part(self, part: int, size: int, place: int) -> pa.Table:
        # Of one part a viewer's hours differ because each row has its own slot, and parts have slots of their own.
        rng = np.random.default_rng([3, place, part])
        slots = rng.permutation(size) + part * ROWS_PER_FILE
        viewers, hours = slots % self.viewers, slots // self.viewers * 37 % (SPAN_DAYS * 24)
        times = pa.array(START_MS + hours * HOUR_MS).cast(TIME)
        kinds = STORED[place].feature_schema().types
        values = {
            f"d{days}": pa.array(rng.integers(0, 1_000_000, size)).cast(kind)
            for days, kind in zip(WINDOWS, kinds, strict=True)
        }
        names = self._names().take(pa.array(viewers))
        times_of = {"event_timestamp": times, "created_timestamp": times, "last_event_timestamp": times}
        return pa.table({VIEWER: names} | times_of | values)

    def _names(self) -> pa.Array:
        return pa.array([f"{number * 0x9E3779B97F4A7C15 % 2**64:064x}" for number in range(self.viewers)])


def _times(rng: np.random.Generator, size: int) -> pa.Array:
    return pa.array(START_MS + rng.integers(0, SPAN_DAYS * DAY_MS, size)).cast(TIME)
