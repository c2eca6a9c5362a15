"""Duplicates (spec 11.1, row 3): events that came more than once, and origins that are in bronze more than once.

Rows are brought together by a 128-bit hash of what identifies them, in Ray tasks; only counts come back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
import pyarrow as pa
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import FileScanTask, Table

from pipelines.cluster import buckets_for, shuffle
from pipelines.intake import COUNTS
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks
from pipelines.quality.arrivals import HOUR_MS
from pipelines.quality.ledger import summaries
from pipelines.quality.results import Check, Result, Status, judged
from pipelines.quality.subject import Platform, between, files_between

ROWS_PER_TASK = 500_000
AT_LEAST_BUCKETS = 2
EVENT = ("event_id",)
ORIGIN = ("cluster_id", "topic", "partition", "offset")


@dataclass
class Repeats:
    """Rows by topic, and those that repeat an earlier one: within the duplicates' window of it, and in all."""

    rows: Counter[str]
    close: Counter[str]
    all: Counter[str]


def duplicates(platform: Platform) -> Iterator[Result]:
    """Per topic the share of events that repeat another within an hour, in bronze; none may, in silver."""
    settings, window = platform.settings, platform.events
    if platform.bronze is not None:
        found = _repeats(platform, platform.bronze, EVENT)
        for topic, rows in sorted(found.rows.items()):
            share, limit = found.close[topic] / rows, settings.max_duplicate_share
            later = found.all[topic] - found.close[topic]
            detail = f"{found.close[topic]:,} of {rows:,} events repeat one of the hour before, {later:,} an older one"
            yield Result(Check.DUPLICATES, topic, judged(share > limit), share, limit, detail, window)
    for name, table in platform.silver.items():
        found = _repeats(platform, table, EVENT)
        repeated, rows = found.all.total(), found.rows.total()
        dropped = _dropped_by_clean(table)
        detail = f"{repeated:,} of {rows:,} rows repeat an event id"
        detail += f"; cleaning has dropped {dropped:,} so far" if dropped is not None else ""
        yield Result(Check.DUPLICATES, name, judged(repeated > 0, Status.FAIL), float(repeated), 0.0, detail, window)


def unique_origins(platform: Platform) -> Iterator[Result]:
    """Bronze holds every (cluster, topic, partition, offset) once."""
    if platform.bronze is None:
        return
    found = _repeats(platform, platform.bronze, ORIGIN)
    for topic, rows in sorted(found.rows.items()):
        repeated = found.all[topic]
        detail = f"{repeated:,} of {rows:,} rows repeat a Kafka offset"
        status = judged(repeated > 0, Status.FAIL)
        yield Result(Check.EXACTLY_ONCE, topic, status, float(repeated), 0.0, detail, platform.events)


def _dropped_by_clean(table: Table) -> int | None:
    """Rows that cleaning dropped as duplicates, as far as its snapshots tell; None where none does."""
    counted = [json.loads(one[COUNTS]) for one in summaries(table) if COUNTS in one]
    return sum(counts.get("duplicate event id", 0) for counts in counted) if counted else None


def _repeats(platform: Platform, table: Table, identity: Sequence[str]) -> Repeats:
    """Rows of the window that repeat an earlier one of it."""
    tasks = files_between(table, "event_timestamp", platform.events)
    inside = between("event_timestamp", platform.events)
    groups = list(file_groups(tasks, ROWS_PER_TASK))
    buckets = buckets_for(sum(task.file.record_count for task in tasks), AT_LEAST_BUCKETS)
    close_ms = platform.settings.duplicate_window_hours * HOUR_MS
    split = partial(_split, TableFiles.of(table), inside, tuple(identity), buckets)
    found = Repeats(Counter(), Counter(), Counter())
    for counted in shuffle(groups, split, partial(_count, close_ms), buckets):
        for topic, rows, close, repeated in counted.iter_rows():
            found.rows[topic] += rows
            found.close[topic] += close
            found.all[topic] += repeated
    return found


def _split(
    table: TableFiles, inside: BooleanExpression, identity: Sequence[str], buckets: int, tasks: list[FileScanTask]
) -> list[pa.Table]:
    has_topic = "topic" in table.metadata.schema().column_names
    columns = {*identity, "event_timestamp", *(["topic"] if has_topic else [])}
    rows = pl.DataFrame(read_tasks(table, tasks, sorted(columns), inside))
    key = pl.struct(pl.col(name).cast(pl.String) for name in identity)
    keyed = rows.select(
        key.hash(seed=0).alias("key"),
        key.hash(seed=1).alias("other_half"),
        pl.col("event_timestamp").dt.timestamp("ms").alias("at_ms"),
        (pl.col("topic").cast(pl.Categorical) if has_topic else pl.lit("", pl.Categorical)).alias("topic"),
    )
    return [keyed.filter(pl.col("key") % buckets == bucket).to_arrow() for bucket in range(buckets)]


def _count(close_ms: int, _: int, cuts: list[pa.Table]) -> pl.DataFrame:
    rows = pl.concat([pl.DataFrame(cut).with_columns(pl.col("topic").cast(pl.String)) for cut in cuts])
    rows = rows.sort("key", "other_half", "at_ms").with_columns(
        pl.all_horizontal(pl.col(half) == pl.col(half).shift() for half in ("key", "other_half"))
        .fill_null(value=False)
        .alias("repeats"),
        (pl.col("at_ms") - pl.col("at_ms").shift() <= close_ms).fill_null(value=False).alias("soon"),
    )
    close = (pl.col("repeats") & pl.col("soon")).sum().alias("close")
    return rows.group_by("topic").agg(pl.len(), close, pl.col("repeats").sum())
