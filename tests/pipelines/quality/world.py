"""A lakehouse written by hand: three healthy hours and the same three a week before, to be spoilt one way at a time."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.contract.events import load_contract
from pipelines.intake import COUNTS
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.quality.results import Result, Status
from pipelines.quality.station import QualityRun, quality
from pipelines.settings import LakehouseSettings, QualitySettings, Settings
from tests.pipelines.event_rows import example_row

MINUTE, HOUR, WEEK = 60_000, 3_600_000, 7 * 24 * 3_600_000
END = 1_767_600_000_000  # 2026-01-05T08:00:00Z, a whole hour
INGESTED = END + 3 * HOUR
HOURS = 3
Row = dict[str, Any]

SILVER = {
    "silver.playback": {"content_id": pa.string(), "client_timestamp_reliable": pa.bool_()},
    "silver.live": {"channel_id": pa.string(), "previous_channel_id": pa.string()},
    "silver.recommendations": {"content_ids": pa.list_(pa.string())},
}
_SILVER_COMMON = [
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_name", pa.string(), nullable=False),
    pa.field("event_timestamp", TIMESTAMP, nullable=False),
    pa.field("topic", pa.string()),
    pa.field("consent_analytics", pa.bool_()),
]


@dataclass
class World:
    """Rows to be written, each list in its table; `offsets` is what ingest says that it consumed."""

    folder: Path
    partition: str = "hour"
    bronze: list[Row] = field(default_factory=list)
    quarantine: list[Row] = field(default_factory=list)
    silver: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in SILVER})
    titles: list[Row] = field(default_factory=list)
    dropped: int = 0
    without_fate: int = 0
    quality: dict[str, Any] = field(default_factory=dict)
    uncounted: list[Row] = field(default_factory=list)  # written, though the counts do not know of them
    offsets: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        quiet = dict.fromkeys(("catalog.changes", "epg.updates"), 1e9)
        thresholds = {"window_hours": HOURS, "min_volume_events": 5, "max_silence_minutes_by_topic": quiet}
        self.settings = Settings(
            work_dir=self.folder,
            lakehouse=LakehouseSettings(event_partition=self.partition, buckets=2),
            quality=QualitySettings(**thresholds | self.quality),
        )
        self.contract = load_contract(self.settings.schemas)
        self.lakehouse = Lakehouse.open(self.settings)

    def origin(self, topic: str) -> Row:
        """The next offset of a topic."""
        self.offsets[topic] += 1
        return {"cluster_id": "here", "topic": topic, "partition": 0, "offset": self.offsets[topic] - 1}

    def receive(self, name: str, at_ms: int, **columns: Any) -> Row:
        """An event that was admitted to bronze."""
        schema = self.contract.event(name, columns.pop("on", None))
        row = example_row(schema, 1 + len(self.bronze) % 4)
        row |= {"event_id": f"evt_{len(self.bronze):06}", "event_timestamp": at_ms, "consent_analytics": True}
        row |= self.origin(schema.topic) | {"ingested_at": INGESTED} | columns
        self.bronze.append(row)
        return row

    def set_aside(self, topic: str, reason: str) -> None:
        """A message that went to quarantine."""
        self.quarantine.append(
            self.origin(topic) | {"ingested_at": INGESTED, "reason": reason, "encrypted_value": b"sealed"}
        )

    def clean(self, table: str, row: Row, **columns: Any) -> Row:
        """A row of silver made from one of bronze."""
        cleaned = {name: row.get(name) for name in (*(one.name for one in _SILVER_COMMON), *SILVER[table])} | columns
        self.silver[table].append(cleaned)
        return cleaned

    def write(self) -> "World":
        """Put everything in the lakehouse: bronze in two commits, with what was consumed and what became of it."""
        bronze = tables.bronze_events(self.contract, self.partition)
        middle = len(self.bronze) // 2
        for rows, is_last in ((self.bronze[:middle], False), (self.bronze[middle:], True)):
            self._commit(bronze, rows, is_last)
        self._commit(tables.quarantine_events(), self.quarantine, is_last=True)
        for name, rows in self.silver.items():
            own = [pa.field(column, kind) for column, kind in SILVER[name].items()]
            self._append(TableSpec(name, pa.schema([*_SILVER_COMMON, *own])), rows)
        self._append(tables.silver_titles(), self.titles)
        return self

    def _commit(self, spec: TableSpec, rows: list[Row], is_last: bool) -> None:
        counts = Counter(f"event {row['event_name']}" for row in rows if "event_name" in row)
        counts.subtract(f"event {row['event_name']}" for row in rows if row in self.uncounted)
        if is_last:
            counts.update(f"quarantined {row['reason']}" for row in self.quarantine)
            counts["dropped analytics_refused"] += self.dropped
        consumed = self.offsets if is_last else Counter(row["topic"] for row in rows)
        messages = sum(counts.values()) + self.without_fate * is_last
        if spec.name == "quarantine.events":  # its one commit is of the whole
            counts.update(f"event {row['event_name']}" for row in self.bronze)
            messages = sum(counts.values()) + self.without_fate
        progress = {"cluster_id": "here", "offsets": {topic: {"0": n} for topic, n in consumed.items()}}
        self._append(spec, rows, progress, {COUNTS: json.dumps({**counts, "messages": messages})})

    def _append(self, spec: TableSpec, rows: list[Row], progress: Row | None = None, facts: Row | None = None) -> None:
        table = self.lakehouse.table(spec)
        by_event: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_event[row.get("event_name", "")].append(row)
        files = []
        for of_event in by_event.values():
            arrow = pa.table(
                {
                    column.name: pa.array(
                        [row.get(column.name) for row in of_event],
                        pa.int64() if pa.types.is_timestamp(column.type) else column.type,
                    ).cast(pa.timestamp("ms", "UTC") if pa.types.is_timestamp(column.type) else column.type)
                    for column in spec.schema
                }
            )
            files += write_files(TableFiles.of(table), arrow)
        commit_files(table, files, progress or {}, facts)

    def judge(self) -> QualityRun:
        """Write everything and run the checks."""
        self.write()
        return quality(self.settings)


def healthy(folder: Path, **settings: Any) -> World:
    """A world in which every check is ok: playback and live, every 5 minutes of 3 hours, this week and last."""
    world = World(folder, **settings)
    long_ago = {"at_ms": END - WEEK - 20 * HOUR, "consent_analytics": None}
    world.titles.append(world.receive("title.added", **long_ago, content_id="vod-1", content_type="vod"))
    world.receive("schedule.updated", **long_ago, channel_id="ch-1")
    for week in (WEEK, 0):
        for step in range(HOURS * 12):
            at_ms = END - week - HOURS * HOUR + (step + 1) * 5 * MINUTE - 1
            played = world.receive("playback.started", at_ms, content_id="vod-1")
            tuned = world.receive("channel.tune", at_ms, channel_id="ch-1", previous_channel_id=None)
            served = world.receive("recommendation.response", at_ms, content_ids=["vod-1", "ch-1"])
            world.clean("silver.playback", played, client_timestamp_reliable=True)
            world.clean("silver.live", tuned)
            world.clean("silver.recommendations", served)
    return world


def turned(run: QualityRun) -> set[tuple[str, str, Status]]:
    """Check, subject and status of everything that is not ok."""
    return {(str(one.check), one.subject, one.status) for one in run.findings.results if one.status is not Status.OK}


def of(run: QualityRun, check: str, subject: str) -> Result:
    """The one result of a check and subject."""
    (found,) = [one for one in run.findings.results if one.check == check and one.subject == subject]
    return found
