"""Retention: rows leave a table when their time is up, counted from their ingestion.

Files all of whose rows are past it are dropped; those with rows of both kinds are written anew without the old ones.
Their bytes are gone when the last snapshot that names them has expired (`lakehouse.snapshot_keep_hours` later).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.lakehouse.inventory import LiveFile
from pipelines.lakehouse.tables import AUDIT
from pipelines.settings import LakehouseSettings

DAY_MS = 24 * 3_600_000
# What is said once and holds until something else is said: its last word must not be forgotten.
HISTORIES = frozenset({"silver.titles", "silver.subscriptions"})


@dataclass(frozen=True)
class Outdated:
    """What of a table is past its time: files as a whole, and files with some such rows."""

    whole: tuple[LiveFile, ...]
    mixed: tuple[LiveFile, ...]


def cutoff_ms(table: str, settings: LakehouseSettings, now_ms: int) -> int | None:
    """Rows of `table` ingested before this instant go; None for tables that keep theirs."""
    days = {
        "bronze": settings.bronze_retention_days,
        "silver": settings.silver_retention_days,
        "quarantine": settings.quarantine_retention_days,
        AUDIT: settings.audit_retention_days,
    }.get(table if table == AUDIT else table.partition(".")[0])
    return None if days is None or table in HISTORIES else now_ms - int(days * DAY_MS)


def outdated(files: Iterable[LiveFile], before_ms: int) -> Outdated:
    """Files with rows ingested before `before_ms`; one whose ingestion is unknown has none."""
    whole: list[LiveFile] = []
    mixed: list[LiveFile] = []
    for file in files:
        if file.ingested is None or file.ingested.first_ms >= before_ms:
            continue
        (whole if file.ingested.last_ms < before_ms else mixed).append(file)
    return Outdated(tuple(whole), tuple(mixed))
