"""Retention proven: after maintenance no byte of a row past its limit is left in any layer."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipelines.erased import USER, Tombstones
from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import row_count
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.maintain import maintain
from pipelines.settings import LakehouseSettings, Settings
from tests.pipelines.privacy.bytes_scan import files_with

HOUR_S, DAY_S = 3_600, 86_400
COLUMNS = pa.schema(
    [
        pa.field("event_name", pa.string()),
        pa.field("event_timestamp", TIMESTAMP),
        pa.field("ingested_at", TIMESTAMP, nullable=False),
        pa.field("user_id", pa.string()),
    ]
)
LIMITS_DAYS = {"bronze.events": 90, "silver.playback": 365, "silver.browse": 365, "quarantine.events": 7}  # spec 8.3


def specs() -> list[TableSpec]:
    cut = {"bronze.events": (("event_timestamp", "month"), ("event_name", "identity"))}
    return [TableSpec(name, COLUMNS, cut.get(name, (("event_timestamp", "month"),))) for name in LIMITS_DAYS]


def marker(table: str, age_s: float) -> str:
    """A text that is in one row only."""
    return f"{table.replace('.', '-')}-{int(age_s)}-{'ab' * 20}"


def fill(lakehouse: Lakehouse, spec: TableSpec, ages_s: list[float], now: float) -> None:
    """One commit with a row of each age, its marker in it."""
    instants = [datetime.fromtimestamp(now - age, UTC) for age in ages_s]
    rows = pa.table(
        {
            "event_name": ["playback.started"] * len(ages_s),
            "event_timestamp": pa.array([datetime.fromtimestamp(now, UTC)] * len(ages_s), TIMESTAMP),
            "ingested_at": pa.array(instants, TIMESTAMP),
            "user_id": [marker(spec.name, age) for age in ages_s],
        }
    )
    table = lakehouse.table(spec)
    commit_files(table, write_files(TableFiles.of(table), rows), progress_of(table))


def test_no_byte_past_its_limit_is_left(ray_session, tmp_path: Path):
    settings = Settings(
        work_dir=tmp_path,
        lakehouse=LakehouseSettings(snapshot_keep_hours=0, snapshots_at_least=1, orphan_age_hours=1),
    )
    lakehouse, now = Lakehouse.open(settings), time.time()
    past, kept = [], []
    for spec in specs():
        limit_s = LIMITS_DAYS[spec.name] * DAY_S
        old, young = [limit_s + HOUR_S, limit_s + 30 * DAY_S], [limit_s - HOUR_S, 0.0]
        fill(lakehouse, spec, [*old, *young], now)  # in one file
        fill(lakehouse, spec, [limit_s + 2 * HOUR_S], now)  # in a file of their own
        past += [marker(spec.name, age) for age in (*old, limit_s + 2 * HOUR_S)]
        kept += [marker(spec.name, age) for age in young]
    assert len(files_with(tmp_path / "warehouse", past)) >= 2 * len(LIMITS_DAYS)
    clean(lakehouse)
    maintain(settings)
    clean(lakehouse)  # whoever follows bronze goes on from there
    maintain(settings)
    for path in (tmp_path / "warehouse").rglob("*"):  # an hour later: what nothing names has had its time
        os.utime(path, (now - 2 * HOUR_S, now - 2 * HOUR_S))
    maintain(settings)
    assert files_with(tmp_path / "warehouse", past) == {}
    for text in kept:
        assert files_with(tmp_path / "warehouse", [text]) != {}


def clean(lakehouse: Lakehouse) -> None:
    """Silver has read all of bronze, so that nothing waits for it."""
    snapshot = lakehouse.existing("bronze.events").current_snapshot()
    for name in ("silver.playback", "silver.browse"):
        commit_files(lakehouse.existing(name), [], {"bronze_snapshot": snapshot.snapshot_id})


def test_tombstones_stay_whatever_their_age(ray_session, tmp_path: Path):
    settings = Settings(work_dir=tmp_path)
    lakehouse = Lakehouse.open(settings)
    stones = Tombstones(bytes(32))
    long_ago = datetime.fromtimestamp(0, UTC)
    rows = [{"kind": USER, "mark": stones.mark(USER, "ann"), "erased_at": long_ago}]
    table = lakehouse.table(tables.tombstones())
    commit_files(table, write_files(TableFiles.of(table), pa.Table.from_pylist(rows, schema=tables.TOMBSTONES)), None)
    maintain(settings)
    assert row_count(lakehouse.existing("privacy.tombstones")) == 1
    assert Tombstones.read(lakehouse, bytes(32)).has(USER, "ann")
