"""When events came, by topic and hour: from the files' metadata, else from the two columns that tell.

A file of bronze holds one event's rows of one hour where tables are partitioned by hour; then nothing is opened. A
coarser partition, or compaction, may put several hours or topics together: such files are read, in Ray tasks.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import polars as pl
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from pipelines.cluster import run_tasks
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks
from pipelines.quality.metadata import bounds_ms, only_topic

HOUR_MS = 3_600_000
ROWS_PER_TASK = 1_000_000
ARRIVALS = {"topic": pl.String, "hour_ms": pl.Int64, "rows": pl.Int64, "first_ms": pl.Int64, "last_ms": pl.Int64}


def arrivals(table: Table, tasks: Iterable[FileScanTask], column: str, topics: Sequence[str]) -> pl.DataFrame:
    """Rows by topic and hour of the instants in `column`, sorted by both.

    `topics` are all that rows may be of. Columns: topic, hour_ms (its beginning), rows, first_ms and last_ms (the
    first and last instant in it).
    """
    known: list[tuple[str, int, int, int, int]] = []
    to_read: list[FileScanTask] = []
    for task in tasks:
        row = _from_metadata(table, task.file, column, topics)
        if row is None:
            to_read.append(task)
        else:
            known.append(row)
    parts = [pl.DataFrame(known, schema=ARRIVALS, orient="row")]
    groups = list(file_groups(to_read, ROWS_PER_TASK))
    parts += run_tasks(partial(_read, TableFiles.of(table), column), groups) if groups else []
    return _summed(pl.concat(parts))


def _from_metadata(
    table: Table, file: DataFile, column: str, topics: Sequence[str]
) -> tuple[str, int, int, int, int] | None:
    span, topic = bounds_ms(table, file, column), only_topic(table, file, topics)
    if span is None or topic is None or span[0] // HOUR_MS != span[1] // HOUR_MS:
        return None
    return topic, span[0] // HOUR_MS * HOUR_MS, file.record_count, *span


def _read(table: TableFiles, column: str, tasks: list[FileScanTask]) -> pl.DataFrame:
    rows = pl.DataFrame(read_tasks(table, tasks, ["topic", column]))
    at_ms = pl.col(column).dt.timestamp("ms")
    each = rows.select(
        pl.col("topic").cast(pl.String),
        (at_ms // HOUR_MS * HOUR_MS).alias("hour_ms"),
        pl.lit(1, pl.Int64).alias("rows"),
        at_ms.alias("first_ms"),
        at_ms.alias("last_ms"),
    )
    return _summed(each)


def _summed(parts: pl.DataFrame) -> pl.DataFrame:
    sums = (pl.col("rows").sum(), pl.col("first_ms").min(), pl.col("last_ms").max())
    return parts.group_by("topic", "hour_ms").agg(*sums).sort("topic", "hour_ms")
