"""The rows of a training set, part by part, as Ray tasks: made, admitted, split, drawn, balanced, written.

Each step takes a part and gives one, which stays in Ray's store; the driver sees only what was counted. A part is a
bucket of the log that rows are made from, or as many rows of a file or a table as a task holds.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pyiceberg.table import FileScanTask

from features.columns import flat, milliseconds
from features.training.candidates import Available
from features.training.chance import identities
from features.training.declaration import TrainingSet
from features.training.sampling import IS_DRAWN, WEIGHT, Sample, kept_of, with_negatives
from features.training.spine import Every, PerEvent
from features.training.splits import SPLITS, Bounds
from features.windows import HOUR_MS
from pipelines.cluster import join_cluster, result_of, run_tasks
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import read_tasks
from pipelines.point_in_time.left import FilePart
from pipelines.point_in_time.people import People
from pipelines.point_in_time.stored import BucketedTable
from pipelines.training_sets.inputs import DataSpan
from pipelines.training_sets.labels import log_schema

SPLIT, IDENTITY = "_split", "_identity"  # columns that parts carry, and files do not
NO_INSTANT = "without an instant"
BEFORE_DATA = "before the data begin"
AFTER_DATA = "horizon not wholly inside the data"
IN_GAP = "in the gap between splits"
NOT_KEPT = "left out to balance"


@dataclass
class Counts:
    """What became of the rows of a part; `left_out` by reason, `hours`: rows by hour since 1970."""

    rows: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    hours: dict[int, int] = field(default_factory=dict)
    by_split: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    schema: pa.Schema | None = None


def each_part(
    work: Callable[[int, Any], tuple[Counts, pa.Table | None]], parts: Sequence[Any]
) -> tuple[list[Counts], list["ray.ObjectRef[Any]"]]:
    """`work(place, part)` for every part, as Ray tasks: what was counted, and the new parts in Ray's store."""
    join_cluster()
    task: Any = ray.remote(_at).options(num_returns=2)
    shared = ray.put(work)
    pairs = [task.remote(shared, place, part) for place, part in enumerate(parts)]
    return [result_of(counts) for counts, _ in pairs], [table for _, table in pairs]


def _at(work: Callable[[int, Any], tuple[Counts, pa.Table | None]], place: int, part: Any) -> Any:
    return work(place, part)


@dataclass(frozen=True)
class LogPart:
    """The rows that a log's bucket makes for the instants `[since_ms, until_ms)`."""

    bucket: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True)
class OfLog:
    """Rows that a log makes, of instants before `until_ms`."""

    spine: Every | PerEvent
    stored: BucketedTable
    until_ms: int

    def __call__(self, part: LogPart) -> pa.Table:
        """The rows of a part."""
        return self.spine.rows(self._read(part.bucket), part.until_ms, part.since_ms)

    def parts(self, most: int) -> list[LogPart]:
        """The log's buckets, each cut by time so that no part has more than `most` rows if it can be."""
        buckets = range(self.stored.buckets)
        found = dict(run_tasks(self._rows_by_instant, buckets))
        return [part for bucket in buckets for part in in_time(bucket, found[bucket], self.until_ms, most)]

    def _rows_by_instant(self, bucket: int) -> tuple[int, dict[int, int]]:
        return bucket, self.spine.rows_by_instant(self._read(bucket), self.until_ms)

    def _read(self, bucket: int) -> pa.Table:
        names = [name for name in self.spine.reads if name != self.spine.entity]
        return self.stored.read(bucket, self.spine.entity, log_schema(self.spine.source, names))


def in_time(bucket: int, rows_by_instant: Mapping[int, int], until_ms: int, most: int) -> list[LogPart]:
    """Parts of a bucket, one after another, of at most so many rows, or of one instant that has more."""
    parts: list[LogPart] = []
    begin_ms, rows = min(rows_by_instant, default=until_ms), 0
    for at_ms in sorted(rows_by_instant):
        if rows and rows + rows_by_instant[at_ms] > most:
            parts.append(LogPart(bucket, begin_ms, at_ms))
            begin_ms, rows = at_ms, 0
        rows += rows_by_instant[at_ms]
    return [*parts, LogPart(bucket, begin_ms, until_ms)] if rows else parts


@dataclass(frozen=True)
class OfFiles:
    """Rows of Parquet files."""

    def __call__(self, part: FilePart) -> pa.Table:
        """The rows of some row groups."""
        return part.read()


@dataclass(frozen=True)
class OfTable:
    """Rows of an Iceberg table."""

    table: TableFiles
    columns: tuple[str, ...]

    def __call__(self, files: Sequence[FileScanTask]) -> pa.Table:
        """The rows of some files."""
        return read_tasks(self.table, files, self.columns)


@dataclass(frozen=True)
class Admit:
    """Rows of people who allow the purpose, whose horizon is wholly inside the data."""

    read: OfLog | OfFiles | OfTable
    declared: TrainingSet
    people: People | None
    data: DataSpan

    def __call__(self, place: int, part: Any) -> tuple[Counts, pa.Table]:
        """The admitted rows of a part."""
        rows = self.read(part)
        counts = Counts(rows.num_rows)
        if self.people is not None:
            reasons, counts.left_out = self.people.reasons(rows)
            rows = rows.filter(reasons.is_null())
        instant = self.declared.instant
        rows = _leave_out(rows, ~np.asarray(flat(rows[instant]).is_valid()), NO_INSTANT, counts)
        at_ms = milliseconds(rows[instant], instant)
        rows = _leave_out(rows, at_ms + 1 < self.data.since_ms, BEFORE_DATA, counts)
        at_ms = milliseconds(rows[instant], instant)
        rows = _leave_out(rows, at_ms + self.declared.horizon_ms >= self.data.until_ms, AFTER_DATA, counts)
        hours, sizes = np.unique(milliseconds(rows[instant], instant) // HOUR_MS, return_counts=True)
        counts.hours = dict(zip(hours.tolist(), sizes.tolist(), strict=True))
        return counts, rows


@dataclass(frozen=True)
class Draw:
    """Rows in their splits, with the negatives that are drawn for them, their identities and their weights."""

    declared: TrainingSet
    bounds: Bounds
    available: Available | None

    def __call__(self, place: int, rows: pa.Table) -> tuple[Counts, pa.Table]:
        """The rows of a part and those drawn for them."""
        counts, sampling, instant = Counts(), self.declared.sampling, self.declared.instant
        splits = self.bounds.split_of(milliseconds(rows[instant], instant))
        rows = _leave_out(rows, splits < 0, IN_GAP, counts)
        hashes = identities(rows, self.declared.spine.identity)
        sample = Sample(rows, hashes, np.ones(rows.num_rows), np.zeros(rows.num_rows, dtype=np.bool_))
        if sampling.negatives is not None and self.available is not None:
            sample = with_negatives(rows, hashes, instant, sampling.negatives, self.available, sampling.seed)
        counts.rows = int(sample.is_drawn.sum())
        found = sample.rows.append_column(WEIGHT, pa.array(sample.weights))
        if sampling.negatives is not None:
            found = found.append_column(IS_DRAWN, pa.array(sample.is_drawn))
        splits = self.bounds.split_of(milliseconds(found[instant], instant))
        found = found.append_column(SPLIT, pa.array(splits)).append_column(IDENTITY, pa.array(sample.identities))
        return counts, found


@dataclass(frozen=True)
class KeepBalanced:
    """Rows that are kept by the balance, with their weights."""

    declared: TrainingSet

    def __call__(self, place: int, rows: pa.Table) -> tuple[Counts, pa.Table]:
        """The kept rows of a part."""
        balance, counts = self.declared.sampling.balance, Counts()
        if balance is None:
            return counts, rows
        splits = np.asarray(flat(rows[SPLIT]), dtype=np.int64)
        hashes = np.asarray(flat(rows[IDENTITY]), dtype=np.uint64)
        kept, probability = kept_of(rows[balance.label], splits, hashes, balance, self.declared.sampling.seed)
        weights = np.asarray(flat(rows[WEIGHT])) / probability
        rows = rows.set_column(rows.column_names.index(WEIGHT), WEIGHT, pa.array(weights))
        return counts, _leave_out(rows, ~kept, NOT_KEPT, counts)


@dataclass(frozen=True)
class Write:
    """Parquet files of a part, one a split that it has rows of."""

    folder: Path

    def __call__(self, place: int, rows: pa.Table) -> tuple[Counts, None]:
        """Rows by split, the files with their SHA-256, and the columns."""
        counts = Counts()
        splits = np.asarray(flat(rows[SPLIT]), dtype=np.int64)
        rows = rows.drop_columns([SPLIT, IDENTITY]).replace_schema_metadata(None)
        counts.schema = rows.schema
        for number, split in enumerate(SPLITS):
            mine = rows.filter(pa.array(splits == number))
            if mine.num_rows == 0:
                continue
            path = self.folder / f"split={split}" / f"part-{place:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(mine, path)
            counts.by_split[split] = mine.num_rows
            counts.files[str(path.relative_to(self.folder))] = digest_of(path)
        return counts, None


def write_rows(rows: pa.Table, path: Path) -> None:
    """One Parquet file of a declared training set."""
    texts = [one.name for one in rows.schema if pa.types.is_string(one.type)]
    pq.write_table(rows, path, compression="zstd", compression_level=1, use_dictionary=texts)


def digest_of(path: Path | str) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def columns_of_features(declared: TrainingSet, columns: Sequence[str]) -> Mapping[str, str]:
    """Column of the result to the group.feature it is of."""
    return {
        to: f"{one.name}.{name}"
        for one in declared.selections(columns)
        for name, to in one.columns.items()
        if name != one.group.age_column
    }


def _leave_out(rows: pa.Table, mask: np.ndarray, why: str, counts: Counts) -> pa.Table:
    """The rows but for the masked ones, which are counted."""
    size = int(mask.sum())
    if size == 0:
        return rows
    counts.left_out[why] = counts.left_out.get(why, 0) + size
    return rows.filter(pa.array(~mask))
