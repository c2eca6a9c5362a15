"""A small stream of events into `bronze.events`, and a station that follows it into `silver.copy`."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import appended_files, read_files, scan_tasks
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec

DAY_MS = 24 * 3_600_000
COLUMNS = pa.schema(
    [
        pa.field("event_name", pa.string()),
        pa.field("event_timestamp", TIMESTAMP),
        pa.field("ingested_at", TIMESTAMP, nullable=False),
        pa.field("n", pa.int64()),
        pa.field("title", pa.string()),
        pa.field("position_ms", pa.int64()),
        pa.field("headers", pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))),
    ]
)
BRONZE = TableSpec("bronze.events", COLUMNS, (("event_timestamp", "day"), ("event_name", "identity")))
SILVER = TableSpec("silver.copy", COLUMNS, (("event_timestamp", "day"),))


def rows(numbers: range, ingested_ms: int, name: str = "playback.heartbeat") -> pa.Table:
    """One row a number; half of the events have a title, the others a position."""
    at = [ingested_ms + (number * 7919) % 60_000 for number in numbers]
    own = ("title", [f"t{n % 5}" for n in numbers]) if name == "tile.click" else ("position_ms", list(numbers))
    columns = {
        "event_name": [name] * len(numbers),
        "event_timestamp": pa.array([datetime.fromtimestamp(ms / 1000, UTC) for ms in at], TIMESTAMP),
        "ingested_at": pa.array([datetime.fromtimestamp(ingested_ms / 1000, UTC)] * len(numbers), TIMESTAMP),
        "n": pa.array(numbers, pa.int64()),
        own[0]: own[1],
        "headers": pa.array([[{"key": "k", "value": b"v"}] * (n % 3) for n in numbers], COLUMNS.field("headers").type),
    }
    return pa.table(columns)


def append(lakehouse: Lakehouse, spec: TableSpec, new: pa.Table, **progress: object) -> Table:
    """Commit `new` as ingest would."""
    table = lakehouse.table(spec)
    return commit_files(table, write_files(TableFiles.of(table), new), {**progress_of(table), **progress})


def follow(lakehouse: Lakehouse) -> Table:
    """Copy what bronze has gained into silver, as clean would."""
    bronze, silver = lakehouse.table(BRONZE), lakehouse.table(SILVER)
    snapshot = bronze.current_snapshot()
    if snapshot is None:
        return silver
    paths = [file.file_path for file in appended_files(bronze, progress_of(silver).get("bronze_snapshot"))]
    files = write_files(TableFiles.of(silver), read_files(TableFiles.of(bronze), paths, COLUMNS.names)) if paths else []
    return commit_files(silver, files, {"bronze_snapshot": snapshot.snapshot_id})


def content(table: Table, snapshot_id: int | None = None) -> list[tuple[object, ...]]:
    """All rows, as DuckDB reads them from the files of the table's snapshot."""
    tasks = scan_tasks(table) if snapshot_id is None else list(table.scan(snapshot_id=snapshot_id).plan_files())
    paths = [task.file.file_path.removeprefix("file://") for task in tasks]
    if not paths:
        return []
    found = duckdb.sql(f"select * from read_parquet({paths}, union_by_name=true)")
    # A column without a value is absent.
    columns = [name if name in found.columns else "null" for name in COLUMNS.names]
    return sorted(duckdb.sql(f"select {', '.join(columns)} from found").fetchall(), key=lambda row: row[3])


def paths(table: Table) -> set[Path]:
    """The files of the table's current snapshot."""
    return {Path(task.file.file_path.removeprefix("file://")) for task in scan_tasks(table)}
