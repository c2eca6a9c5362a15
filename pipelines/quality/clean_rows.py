"""Clean rows (spec 11.1, rows 2 and 5): clients' clocks, and ids of contents and channels that nobody announced.

Only rows that may be used for analytics are looked at: consented to, or of events that concern no person.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl
import pyarrow as pa
from pyiceberg.expressions import BooleanExpression, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import FileScanTask, Table

from features.decision import may_be_counted
from pipelines.cluster import run_tasks
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks, scan_tasks
from pipelines.quality.results import Check, Result, judged
from pipelines.quality.subject import Platform, between, columns_of, files_between

ROWS_PER_TASK = 500_000
RELIABLE = "client_timestamp_reliable"
CONTENT_COLUMNS = ("content_id", "content_ids")
CHANNEL_COLUMNS = ("channel_id", "previous_channel_id")
# These announce contents and channels, or speak of what is on its way into the catalogue.
ANNOUNCING = frozenset({"silver.catalog", "silver.epg_service", "silver.content_ingest"})
SCHEDULE_EVENTS = ("schedule.updated", "program.changed")
ORPHANS_PER_TASK = 10_000
ORPHANS_NAMED = 5


@dataclass(frozen=True)
class Reading:
    """What a task reads of a table, and which of its rows may be used."""

    table: TableFiles
    columns: tuple[str, ...]
    inside: BooleanExpression
    nobodys: frozenset[str]  # events that concern no person

    @classmethod
    def of(cls, platform: Platform, table: Table, columns: Sequence[str]) -> "Reading":
        """`columns` of the rows of the window."""
        wanted = {*columns, "event_name", "event_timestamp", *columns_of(table, ["consent_analytics"])}
        return cls(
            TableFiles.of(table),
            tuple(sorted(wanted)),
            between("event_timestamp", platform.events),
            frozenset(event.name for event in platform.contract.events if event.consent_category == "none"),
        )

    def rows(self, tasks: list[FileScanTask]) -> pl.DataFrame:
        """The rows that may be used for analytics."""
        rows = read_tasks(self.table, tasks, self.columns, self.inside)
        return pl.DataFrame(rows.filter(pa.array(may_be_counted(rows, self.nobodys))))


def client_clocks(platform: Platform) -> Iterator[Result]:
    """Per table the share of client timestamps that are more than five minutes off the server's."""
    limit = platform.settings.max_unreliable_clock_share
    for name, table in platform.silver.items():
        if RELIABLE not in table.schema().column_names:
            continue
        reading = Reading.of(platform, table, [RELIABLE])
        told = unreliable = 0
        for task_told, task_unreliable in run_tasks(partial(_clocks, reading), _groups(platform, table)):
            told += task_told
            unreliable += task_unreliable
        share = unreliable / told if told else 0.0
        detail = f"{unreliable:,} of {told:,} client timestamps are flagged unreliable"
        yield Result(Check.TIMESTAMPS, name, judged(share > limit), share, limit, detail, platform.events)


def references(platform: Platform) -> Iterator[Result]:
    """Per column of content or channel ids the share that the catalogue and the schedule do not know, with examples.

    A channel is known by a schedule or as a live title; the content of a live playback may be either.
    """
    titles, channels = _announced(platform)
    for name, table in platform.silver.items():
        if name in ANNOUNCING:
            continue
        for columns, known in ((CONTENT_COLUMNS, titles | channels), (CHANNEL_COLUMNS, channels)):
            for column in columns_of(table, columns):
                yield _orphans(platform, name, table, column, known)


def _orphans(platform: Platform, name: str, table: Table, column: str, known: frozenset[str]) -> Result:
    reading = Reading.of(platform, table, [column])
    referring = 0
    orphans: Counter[str] = Counter()
    announced = pl.Series(sorted(known), dtype=pl.String)
    for task_referring, task_orphans in run_tasks(
        partial(_unknown, reading, column, announced), _groups(platform, table)
    ):
        referring += task_referring
        orphans.update(task_orphans)
    share, limit = orphans.total() / referring if referring else 0.0, platform.settings.max_orphan_share
    examples = ", ".join(one for one, _ in orphans.most_common(ORPHANS_NAMED))
    detail = f"{orphans.total():,} of {referring:,} references to {len(orphans):,} unknown ids"
    detail += f": {examples}" if examples else ""
    return Result(Check.REFERENCES, f"{name}.{column}", judged(share > limit), share, limit, detail, platform.events)


def _announced(platform: Platform) -> tuple[frozenset[str], frozenset[str]]:
    """Ids of all titles, and of all channels, ever announced."""
    titles: set[str] = set()
    channels: set[str] = set()
    catalogue = platform.lakehouse.existing("silver.titles")
    if catalogue is not None:
        groups = list(file_groups(scan_tasks(catalogue), ROWS_PER_TASK))
        for contents, live in run_tasks(partial(_titles, TableFiles.of(catalogue)), groups):
            titles |= contents
            channels |= live
    if platform.bronze is not None:
        wanted = In(term=Reference("event_name"), values={literal(name) for name in SCHEDULE_EVENTS})
        groups = list(file_groups(scan_tasks(platform.bronze, wanted), ROWS_PER_TASK))
        for scheduled in run_tasks(partial(_scheduled, TableFiles.of(platform.bronze), wanted), groups):
            channels |= scheduled
    return frozenset(titles), frozenset(channels)


def _titles(table: TableFiles, tasks: list[FileScanTask]) -> tuple[set[str], set[str]]:
    rows = pl.DataFrame(read_tasks(table, tasks, ["content_id", "content_type"]))
    live = rows.filter(pl.col("content_type") == "live")
    return set(rows["content_id"].drop_nulls()), set(live["content_id"].drop_nulls())


def _scheduled(table: TableFiles, wanted: BooleanExpression, tasks: list[FileScanTask]) -> set[str]:
    rows = pl.DataFrame(read_tasks(table, tasks, ["event_name", "channel_id"], wanted))
    return set(rows["channel_id"].drop_nulls())


def _clocks(reading: Reading, tasks: list[FileScanTask]) -> tuple[int, int]:
    reliable = reading.rows(tasks)[RELIABLE].drop_nulls()
    return len(reliable), len(reliable) - int(reliable.sum())


def _unknown(reading: Reading, column: str, known: pl.Series, tasks: list[FileScanTask]) -> tuple[int, dict[str, int]]:
    ids = reading.rows(tasks)[column]
    if isinstance(ids.dtype, pl.List):
        ids = ids.explode()
    ids = ids.drop_nulls()
    counted = ids.filter(~ids.is_in(known.implode())).value_counts(sort=True)
    return len(ids), dict(counted.head(ORPHANS_PER_TASK).iter_rows())


def _groups(platform: Platform, table: Table) -> list[list[FileScanTask]]:
    return list(file_groups(files_between(table, "event_timestamp", platform.events), ROWS_PER_TASK))
