"""Commits: what may come between planning and committing, and what must never come twice or get lost."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException, ServiceUnavailableError
from pyiceberg.table import Table

from pipelines.lakehouse import commits
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import (
    CommitRefusedError,
    ConcurrentCommitError,
    commit_files,
    progress_of,
    replace_files,
)
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import scan_tasks
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.settings import Settings

PARTITIONED = TableSpec(
    "silver.sample", pa.schema([pa.field("at", TIMESTAMP), pa.field("n", pa.int64())]), (("at", "month"),)
)
WHOLE = TableSpec("privacy.sample", PARTITIONED.schema)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse.open(Settings(work_dir=tmp_path))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "LONGEST_PAUSE_S", 0.01)


def files(table: Table, *numbers: int):
    at = pa.array([datetime(2026, 1 + n % 3, 5, tzinfo=UTC) for n in numbers], TIMESTAMP)
    return write_files(TableFiles.of(table), pa.table({"at": at, "n": pa.array(numbers, pa.int64())}))


def numbers(table: Table) -> list[int]:
    """What DuckDB finds in the table's files, so that a file named twice counts twice."""
    paths = [task.file.file_path.removeprefix("file://") for task in scan_tasks(table)]
    if not paths:
        return []
    return sorted(duckdb.sql(f"select n from read_parquet({paths})").fetchnumpy()["n"].tolist())


def disturb(lakehouse: Lakehouse, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None):
    """The real catalog, with something happening before or after its next commits reach it."""
    real = lakehouse.catalog.commit_table

    def commit_table(*arguments, **named):
        before()
        answer = real(*arguments, **named)
        after()
        return answer

    lakehouse.catalog.commit_table = commit_table
    return lambda: setattr(lakehouse.catalog, "commit_table", real)


@pytest.mark.parametrize("spec", [PARTITIONED, WHOLE], ids=["partitioned", "whole"])
def test_a_commit_goes_on_top_of_maintenance(lakehouse, spec):
    table = commit_files(lakehouse.table(spec), files(lakehouse.table(spec), 1), {"next": 1})
    table = commit_files(table, files(table, 2), {"next": 2})
    planned, new = lakehouse.table(spec), files(table, 3)
    beside = lakehouse.table(spec)
    maintained = replace_files(beside, [t.file for t in scan_tasks(beside)], files(beside, 1, 2))
    assert numbers(maintained) == [1, 2]
    assert progress_of(maintained) == {"next": 2}

    table = commit_files(planned, new, {"next": 3})
    assert numbers(table) == [1, 2, 3]
    assert progress_of(lakehouse.table(spec)) == {"next": 3}


def test_maintenance_goes_on_top_of_commits_and_carries_their_progress(lakehouse):
    table = commit_files(lakehouse.table(PARTITIONED), files(lakehouse.table(PARTITIONED), 1, 2), {"next": 2})
    planned, stale = lakehouse.table(PARTITIONED), [task.file for task in scan_tasks(table)]
    rewritten = files(planned, 1, 2)
    commit_files(table, files(table, 3), {"next": 3})

    table = replace_files(planned, stale, rewritten)
    assert numbers(table) == [1, 2, 3]
    assert progress_of(table) == {"next": 3}
    assert table.current_snapshot().summary.additional_properties["reel.progress"] == '{"next": 3}'


def test_what_somebody_else_replaced_is_not_replaced_again(lakehouse):
    table = commit_files(lakehouse.table(PARTITIONED), files(lakehouse.table(PARTITIONED), 1), {})
    stale = [task.file for task in scan_tasks(table)]
    one, other = lakehouse.table(PARTITIONED), lakehouse.table(PARTITIONED)
    replace_files(one, stale, files(one, 1))
    with pytest.raises(ConcurrentCommitError):
        replace_files(other, stale, files(other, 1))
    assert numbers(lakehouse.table(PARTITIONED)) == [1]


@pytest.mark.parametrize("failure", [ServiceUnavailableError("busy"), CommitFailedException("no"), OSError("reset")])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(lakehouse, failure):
    table = commit_files(lakehouse.table(PARTITIONED), files(lakehouse.table(PARTITIONED), 1), {"next": 1})
    lost = iter([failure])

    def lose_answer():
        for one in lost:
            raise one

    new = files(table, 2)
    restore = disturb(lakehouse, after=lose_answer)
    table = commit_files(table, new, {"next": 2})
    restore()
    assert numbers(table) == numbers(lakehouse.table(PARTITIONED)) == [1, 2]
    assert len(table.metadata.snapshots) == 2


def test_a_lost_answer_with_maintenance_right_behind_is_not_made_twice(lakehouse):
    table = commit_files(lakehouse.table(PARTITIONED), files(lakehouse.table(PARTITIONED), 1), {"next": 1})
    restore: Callable[[], None]

    def maintain_and_lose():
        restore()
        beside = lakehouse.table(PARTITIONED)
        replace_files(beside, [task.file for task in scan_tasks(beside)], files(beside, 1, 2))
        raise ServiceUnavailableError("gateway timeout")

    new = files(table, 2)
    restore = disturb(lakehouse, after=maintain_and_lose)
    table = commit_files(table, new, {"next": 2})
    assert numbers(table) == [1, 2]


def test_a_catalog_that_refuses_is_one_line_and_nothing_is_lost(lakehouse):
    table = commit_files(lakehouse.table(PARTITIONED), files(lakehouse.table(PARTITIONED), 1), {"next": 1})

    def refuse():
        raise ServiceUnavailableError("read-only\nwhile a backup runs")

    new = files(table, 2)
    restore = disturb(lakehouse, before=refuse)
    with pytest.raises(CommitRefusedError, match=r"silver\.sample: the catalog took no commit in 8 .*read-only") as one:
        commit_files(table, new, {"next": 2})
    assert "\n" not in str(one.value)
    assert one.value.passes
    restore()
    assert progress_of(lakehouse.table(PARTITIONED)) == {"next": 1}

    table = commit_files(lakehouse.table(PARTITIONED), new, {"next": 2})
    assert numbers(table) == [1, 2]


def test_a_catalog_that_refuses_for_a_while_is_asked_again(lakehouse):
    table = lakehouse.table(PARTITIONED)
    refusals = iter([ServiceUnavailableError("busy"), OSError("reset")])

    def refuse():
        for one in refusals:
            raise one

    new = files(table, 1)
    disturb(lakehouse, before=refuse)
    assert numbers(commit_files(table, new, {"next": 1})) == [1]


def test_many_at_once_each_commit_once(tmp_path):
    settings = Settings(work_dir=tmp_path)
    Lakehouse.open(settings).table(PARTITIONED)
    failures: list[BaseException] = []

    def append(first: int) -> None:
        try:
            own = Lakehouse.open(settings)
            for n in range(first, first + 5):
                table = own.table(PARTITIONED)
                commit_files(table, files(table, n), {})
        except Exception as error:  # noqa: BLE001 - it is the test's to judge
            failures.append(error)

    threads = [threading.Thread(target=append, args=(10 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    expected = [number for run in (0, 10, 20) for number in range(run, run + 5)]
    assert numbers(Lakehouse.open(settings).table(PARTITIONED)) == expected


def test_a_table_from_before_gains_the_properties_that_keep_commits_cheap(lakehouse):
    table = lakehouse.table(PARTITIONED)
    with table.transaction() as change:
        change.remove_properties("commit.manifest-merge.enabled")
        change.set_properties({"write.metadata.previous-versions-max": "7"})
    properties = lakehouse.table(PARTITIONED).properties
    assert properties["commit.manifest-merge.enabled"] == "true"
    assert properties["write.metadata.previous-versions-max"] == "7"  # somebody's own choice stays


def test_manifests_do_not_pile_up_and_old_metadata_goes(lakehouse):
    table = lakehouse.table(PARTITIONED)
    for n in range(120):
        table = commit_files(table, files(table, n), {"next": n})
    assert len(table.current_snapshot().manifests(table.io)) < 60
    assert numbers(table) == list(range(120))
    metadata = Path(table.location().removeprefix("file://")) / "metadata"
    assert len(list(metadata.glob("*.metadata.json"))) <= 52
