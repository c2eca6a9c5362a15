"""`reel maintain`: the same rows in fewer files, a shorter history, nothing a reader needs gone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of
from pipelines.lakehouse.scans import appended_files, scan_tasks
from pipelines.lakehouse.tables import TableSpec
from pipelines.maintain import UnknownTableError, maintain
from pipelines.settings import LakehouseSettings, Settings
from tests.pipelines.lakehouse.stream import BRONZE, DAY_MS, SILVER, append, content, follow, paths, rows

pytestmark = pytest.mark.usefixtures("ray_session")

NOW_MS = int(time.time() * 1000)


def settings_of(folder: Path, **lakehouse: float) -> Settings:
    return Settings(work_dir=folder, lakehouse=LakehouseSettings(**lakehouse))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def lakehouse(settings: Settings) -> Lakehouse:
    return Lakehouse.open(settings)


def fill(lakehouse: Lakehouse, commits: int = 6, ingested_ms: int = NOW_MS) -> None:
    for number in range(commits):
        name = ("playback.heartbeat", "tile.click")[number % 2]
        append(lakehouse, BRONZE, rows(range(10 * number, 10 * number + 10), ingested_ms, name), next=number)


def summary(table) -> dict[str, str]:
    return table.current_snapshot().summary.additional_properties


def test_the_same_rows_in_fewer_files(lakehouse, settings):
    fill(lakehouse)
    before = content(follow(lakehouse)) and content(lakehouse.table(BRONZE))
    assert len(paths(lakehouse.table(BRONZE))) == 6

    report = maintain(settings, ["bronze.events"])
    bronze = lakehouse.table(BRONZE)
    assert content(bronze) == before
    assert len(before) == 60
    # One file an event and day; which is one day, or two when the test runs at midnight.
    assert len(paths(bronze)) in (2, 4)
    assert report.did["bronze.events: files replaced"] == 6
    assert summary(bronze)["reel.station"] == "maintain"
    assert progress_of(bronze) == {"next": 5}
    times = bronze.scan(row_filter="event_name = 'tile.click'").to_arrow()["event_timestamp"].to_pylist()
    assert times == sorted(times)


def test_a_second_run_has_nothing_to_do(lakehouse, settings):
    fill(lakehouse)
    follow(lakehouse)
    maintain(settings)
    snapshots = [lakehouse.table(spec).current_snapshot().snapshot_id for spec in (BRONZE, SILVER)]
    report = maintain(settings)
    assert report.did == {}
    assert [lakehouse.table(spec).current_snapshot().snapshot_id for spec in (BRONZE, SILVER)] == snapshots


def test_who_follows_sees_every_row_once(lakehouse, settings):
    fill(lakehouse, commits=3)
    consumed = progress_of(follow(lakehouse))["bronze_snapshot"]
    maintain(settings)
    assert appended_files(lakehouse.table(BRONZE), consumed) == []
    append(lakehouse, BRONZE, rows(range(100, 105), NOW_MS))
    maintain(settings)
    assert content(follow(lakehouse)) == content(lakehouse.table(BRONZE))
    assert len(content(lakehouse.table(SILVER))) == 35


def test_what_nobody_has_cleaned_yet_is_left_alone(lakehouse, settings):
    fill(lakehouse, ingested_ms=NOW_MS - 100 * DAY_MS)
    before = paths(lakehouse.table(BRONZE))
    maintain(settings)
    assert paths(lakehouse.table(BRONZE)) == before  # no silver at all

    follow(lakehouse)
    append(lakehouse, BRONZE, rows(range(100, 105), NOW_MS - 100 * DAY_MS))
    append(lakehouse, BRONZE, rows(range(105, 110), NOW_MS - 100 * DAY_MS))
    unread = paths(lakehouse.table(BRONZE)) - before
    maintain(settings)
    assert paths(lakehouse.table(BRONZE)) == unread
    lakehouse.table(TableSpec("silver.later", SILVER.schema))  # a new domain, which has read nothing
    append(lakehouse, BRONZE, rows(range(110, 115), NOW_MS))
    assert maintain(settings, ["bronze.events"]).did == {}


def test_retention_counts_from_ingestion_and_takes_rows_out_of_files_that_hold_both(lakehouse, settings):
    fill(lakehouse, commits=2, ingested_ms=NOW_MS - 91 * DAY_MS)
    append(lakehouse, BRONZE, rows(range(100, 110), NOW_MS - 89 * DAY_MS))
    old = rows(range(200, 205), NOW_MS - 91 * DAY_MS)
    event_timestamp = rows(range(205, 210), NOW_MS - 91 * DAY_MS)["event_timestamp"]
    young = rows(range(205, 210), NOW_MS - 89 * DAY_MS).set_column(1, "event_timestamp", event_timestamp)
    append(lakehouse, BRONZE, pa.concat_tables([old, young]))  # an import: old events, some ingested later
    follow(lakehouse)
    kept = [row for row in content(lakehouse.table(BRONZE)) if row[3] in (*range(100, 110), *range(205, 210))]

    report = maintain(settings)
    assert content(lakehouse.table(BRONZE)) == kept
    assert report.did["bronze.events: rows past their retention"] == 25
    assert len(content(lakehouse.table(SILVER))) == 40  # silver keeps a year
    assert len(content(follow(lakehouse))) == 40  # and clean takes no deletion for news

    append(lakehouse, SILVER, rows(range(300, 310), NOW_MS - 366 * DAY_MS))
    assert maintain(settings).did["silver.copy: rows past their retention"] == 10


def test_quarantine_keeps_a_week_and_titles_are_kept(lakehouse, settings):
    quarantine = TableSpec("quarantine.events", BRONZE.schema, (("ingested_at", "day"),))
    titles = TableSpec("silver.titles", BRONZE.schema)
    for spec in (quarantine, titles):
        append(lakehouse, spec, rows(range(5), NOW_MS - 8 * DAY_MS), done=True)
        append(lakehouse, spec, rows(range(5, 10), NOW_MS - 6 * DAY_MS), done=True)
    maintain(settings_of(settings.work_dir, silver_retention_days=1))
    assert [row[3] for row in content(lakehouse.table(quarantine))] == [5, 6, 7, 8, 9]
    assert len(content(lakehouse.table(titles))) == 10


def test_a_table_that_does_not_say_when_rows_came_is_kept_and_the_report_says_so(lakehouse, settings):
    spec = TableSpec("silver.sums", BRONZE.schema.remove(BRONZE.schema.get_field_index("ingested_at")))
    append(lakehouse, spec, rows(range(5), NOW_MS - 800 * DAY_MS), done=True)
    report = maintain(settings, ["silver.sums"])
    assert report.did == {"silver.sums: kept for want of ingested_at, rows": 5}


def test_a_reader_of_an_older_snapshot_goes_on_until_it_expires(tmp_path):
    settings = settings_of(tmp_path, snapshots_at_least=1, snapshots_at_most=1)
    lakehouse = Lakehouse.open(settings)
    fill(lakehouse)
    follow(lakehouse)
    reader = lakehouse.table(BRONZE)
    before = content(reader)
    age(tmp_path)
    maintain(settings)  # replaces every file; their snapshot is an hour old at most, and stays
    follow(lakehouse)
    assert content(reader) == before
    assert len(lakehouse.table(BRONZE).metadata.snapshots) == 2

    age(tmp_path)
    gone = settings_of(tmp_path, snapshots_at_least=1, snapshots_at_most=1, snapshot_keep_hours=0)
    report = maintain(gone)
    assert report.did["bronze.events: snapshots expired"] == 1
    assert report.did["bronze.events: orphaned files deleted"] >= 6
    assert content(lakehouse.table(BRONZE)) == before
    with pytest.raises(FileNotFoundError):
        content(reader)


def age(folder: Path, hours: float = 25) -> None:
    """Every file under `folder` was written so long ago."""
    then = time.time() - hours * 3600
    for path in (folder / "warehouse").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_orphans_go_when_old_and_nothing_else_does(lakehouse, settings):
    fill(lakehouse)
    folder = Path(lakehouse.table(BRONZE).location().removeprefix("file://"))
    before = content(lakehouse.table(BRONZE))
    crashed, writing = folder / "data" / "crashed.parquet", folder / "data" / "writing.parquet"
    metadata = folder / "metadata" / "snap-crashed.avro"
    for path in (crashed, metadata, writing):
        path.write_bytes(b"12345")
    age(settings.work_dir)
    os.utime(writing)
    report = maintain(settings)
    assert report.did == {"bronze.events: orphaned files deleted": 2, "bronze.events: orphaned bytes deleted": 10}
    assert (crashed.exists(), metadata.exists(), writing.exists()) == (False, False, True)
    assert content(lakehouse.table(BRONZE)) == before
    assert len(content(follow(lakehouse))) == 60  # through every snapshot's manifests


def test_an_unknown_table_is_refused(lakehouse, settings):
    fill(lakehouse, commits=1)
    with pytest.raises(UnknownTableError, match=r"no table 'bronze.event'; did you mean bronze.events"):
        maintain(settings, ["bronze.event"])


def test_an_empty_lakehouse_is_fine(settings):
    assert maintain(settings).read == {"tables": 1}  # the audit log, which this run is on


def test_beside_a_running_ingest_and_clean_every_row_is_there_once(tmp_path):
    """Another process ingests and cleans as fast as it can, until this one has maintained again and again."""
    settings = settings_of(tmp_path, snapshots_at_least=2, snapshots_at_most=5, snapshot_keep_hours=0)
    lakehouse = Lakehouse.open(settings)
    append(lakehouse, BRONZE, rows(range(10), NOW_MS))
    follow(lakehouse)
    stream = subprocess.Popen([sys.executable, "-m", __name__, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    replaced = runs = 0
    try:
        while stream.poll() is None:
            runs += 1
            did = maintain(settings).did
            replaced += sum(int(n) for what, n in did.items() if what.endswith("files replaced"))
            if runs > 1 and replaced > COMMITS / 2:
                (tmp_path / ENOUGH).touch()
    finally:
        said, _ = stream.communicate(timeout=300)
    assert stream.returncode == 0
    maintain(settings)
    follow(lakehouse)
    for spec in (BRONZE, SILVER):
        table = lakehouse.table(spec)
        assert [row[3] for row in content(table)] == list(range(10 * (int(said) + 1)))
        assert len(table.metadata.snapshots) < 20
    assert int(said) >= COMMITS


COMMITS, ENOUGH = 40, "maintained enough"


def ingest_and_clean(folder: Path) -> None:
    """What the other process does; a commit that fails is a failure of the test."""
    lakehouse, number = Lakehouse.open(Settings(work_dir=folder)), 0
    while number < COMMITS or not (folder / ENOUGH).exists():
        number += 1
        name = ("playback.heartbeat", "tile.click")[number % 2]
        append(lakehouse, BRONZE, rows(range(10 * number, 10 * number + 10), NOW_MS, name), next=number)
        follow(lakehouse)
    print(number)


def test_the_command_reports_and_takes_names(lakehouse, settings, tmp_path):
    from pipelines.cli import app

    fill(lakehouse)
    follow(lakehouse)
    config = tmp_path / "reel.yaml"
    config.write_text(f"work_dir: {settings.work_dir}\n")
    done = CliRunner().invoke(app, ["--config", str(config), "maintain", "bronze.events", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["did"]["bronze.events: files replaced"] == 6


def test_commits_without_rows_do_not_keep_a_table_from_being_maintained(lakehouse, settings):
    fill(lakehouse)
    follow(lakehouse)
    for number in range(3):
        bronze = lakehouse.table(BRONZE)
        commit_files(bronze, [], {"next": 10 + number})
    maintain(settings)
    assert len(scan_tasks(lakehouse.table(BRONZE))) < 6


if __name__ == "__main__":
    ingest_and_clean(Path(sys.argv[1]))
