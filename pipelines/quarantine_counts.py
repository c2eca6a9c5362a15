"""What is in quarantine, without opening any of it."""

from typing import NamedTuple

import polars as pl

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import file_groups, read_tasks, scan_tasks
from pipelines.settings import Settings

ROWS_PER_READ = 1_000_000
TABLE = "quarantine.events"


class SetAsideOn(NamedTuple):
    """How many messages of a topic were set aside for a reason on a day (UTC, ISO 8601)."""

    day: str
    topic: str
    reason: str
    messages: int


def quarantine_counts(settings: Settings) -> list[SetAsideOn]:
    """Everything in quarantine, counted; the newest day first, then by topic and reason."""
    table = Lakehouse.open(settings).existing(TABLE)
    if table is None:
        return []
    keys = ("day", "topic", "reason")
    counted = [pl.DataFrame(schema={**dict.fromkeys(keys, pl.String), "messages": pl.Int64})]
    for group in file_groups(scan_tasks(table), ROWS_PER_READ):
        rows = pl.DataFrame(read_tasks(TableFiles.of(table), group, ("ingested_at", "topic", "reason")))
        rows = rows.with_columns(day=pl.col("ingested_at").dt.strftime("%Y-%m-%d"))
        counted.append(rows.group_by(keys).agg(messages=pl.len().cast(pl.Int64)))
    totals = pl.concat(counted).group_by(keys).agg(pl.col("messages").sum())
    ordered = totals.sort(keys, descending=[True, False, False])
    return [SetAsideOn(*row) for row in ordered.iter_rows()]
