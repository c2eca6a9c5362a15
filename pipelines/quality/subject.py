"""What is looked at: the lakehouse, the contract, the thresholds, and the hours."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from pyiceberg.exceptions import NoSuchNamespaceError
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThan, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import FileScanTask, Table

from pipelines.contract.events import Contract, load_contract
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import progress_of
from pipelines.lakehouse.scans import scan_tasks
from pipelines.quality.arrivals import ARRIVALS, HOUR_MS, arrivals
from pipelines.quality.metadata import newest_ms
from pipelines.quality.results import Window
from pipelines.settings import QualitySettings, Settings

WEEK_MS = 7 * 24 * HOUR_MS
LOOKBACK_MS = WEEK_MS + 24 * HOUR_MS  # a day more than is compared, to see whether a topic had begun before


@dataclass(frozen=True)
class Platform:
    """The data of one run. Tables that were never made are None, and hold no file."""

    settings: QualitySettings
    contract: Contract
    lakehouse: Lakehouse
    events: Window  # by event_timestamp
    ingestion: Window  # by ingested_at: what was set aside has no other time
    measured_ms: int

    @classmethod
    def of(cls, settings: Settings) -> "Platform":
        """The platform as it is now, or as of its newest event (`quality.as_of`)."""
        lakehouse, now_ms = Lakehouse.open(settings), int(time.time() * 1000)
        hours = settings.quality.window_hours
        events_end = ingestion_end = now_ms
        if settings.quality.as_of == "watermark":
            bronze, quarantine = lakehouse.existing("bronze.events"), lakehouse.existing("quarantine.events")
            newest_event = newest_ms(bronze, "event_timestamp")
            ingested = [at for at in (newest_ms(one, "ingested_at") for one in (bronze, quarantine)) if at is not None]
            events_end = now_ms if newest_event is None else newest_event + 1
            ingestion_end = max(ingested, default=now_ms) + 1
        return cls(
            settings.quality,
            load_contract(settings.schemas),
            lakehouse,
            _window(events_end, hours),
            _window(ingestion_end, hours),
            now_ms,
        )

    @cached_property
    def bronze(self) -> Table | None:
        """Everything received."""
        return self.lakehouse.existing("bronze.events")

    @cached_property
    def quarantine(self) -> Table | None:
        """What was set aside."""
        return self.lakehouse.existing("quarantine.events")

    @cached_property
    def silver(self) -> dict[str, Table]:
        """The tables of clean events, by name."""
        try:
            names = [".".join(one) for one in self.lakehouse.catalog.list_tables("silver")]
        except NoSuchNamespaceError:
            return {}
        tables = {name: self.lakehouse.existing(name) for name in sorted(names)}
        wanted = {"event_id", "event_name", "event_timestamp"}
        return {
            name: one for name, one in tables.items() if one is not None and wanted <= set(one.schema().column_names)
        }

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """All topics that events may have come from: those of the contract, and whatever else was read."""
        recorded = progress_of(self.bronze).get("offsets", {}) if self.bronze is not None else {}
        return tuple(sorted({*self.contract.topics, *recorded}))

    @cached_property
    def arrived(self) -> pl.DataFrame:
        """Events of bronze by topic and hour, over the window and `LOOKBACK_MS` before it."""
        if self.bronze is None:
            return pl.DataFrame(schema=ARRIVALS)
        since = between("event_timestamp", Window(self.events.start_ms - LOOKBACK_MS, self.events.end_ms))
        return within(
            arrivals(self.bronze, scan_tasks(self.bronze, since), "event_timestamp", self.topics), self.events.end_ms
        )

    @cached_property
    def received(self) -> dict[str, int]:
        """Events that were admitted to bronze within the window of ingestion, by topic."""
        if self.bronze is None:
            return {}
        tasks = scan_tasks(self.bronze, between("ingested_at", self.ingestion))
        counted = arrivals(self.bronze, tasks, "ingested_at", self.topics)
        inside = (
            counted.filter(pl.col("hour_ms") >= self.ingestion.start_ms).group_by("topic").agg(pl.col("rows").sum())
        )
        return dict(inside.iter_rows())


def files_between(table: Table, column: str, window: Window) -> list[FileScanTask]:
    """The files that may hold rows of the window."""
    return scan_tasks(table, between(column, window))


def between(column: str, window: Window) -> BooleanExpression:
    """Rows whose instant in `column` lies within the window."""
    first, end = literal(window.start_ms * 1000), literal(window.end_ms * 1000)
    term = Reference(column)
    return And(GreaterThanOrEqual(term=term, value=first), LessThan(term=term, value=end))


def within(counted: pl.DataFrame, end_ms: int) -> pl.DataFrame:
    """Hours that begin before `end_ms`: a server's clock that runs ahead must not tell the future."""
    return counted.filter(pl.col("hour_ms") < end_ms)


def columns_of(table: Table, wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that the table has: an older one may lack some."""
    return [name for name in wanted if name in table.schema().column_names]


def _window(end_ms: int, hours: int) -> Window:
    return Window((end_ms - hours * HOUR_MS) // HOUR_MS * HOUR_MS, end_ms)
