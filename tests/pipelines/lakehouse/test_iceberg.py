"""The lakehouse: one commit carries data and progress, and only from the snapshot it was planned on."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.commits import ConcurrentCommitError, commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import appended_files, file_groups, read_files, read_tasks, row_count, scan_tasks
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.settings import Settings

SPEC = TableSpec(
    "silver.sample",
    pa.schema([pa.field("key", pa.string()), pa.field("at", TIMESTAMP), pa.field("n", pa.int64())]),
    (("at", "month"), ("key", "identity")),
)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse.open(Settings(work_dir=tmp_path))


def rows(*numbers: int, key: str = "a") -> pa.Table:
    at = [datetime(2026, 1 + n % 3, 5, tzinfo=UTC) for n in numbers]
    return pa.table({"key": [key] * len(numbers), "at": pa.array(at, TIMESTAMP), "n": pa.array(numbers, pa.int64())})


def read(table) -> list[int]:
    return sorted(read_tasks(TableFiles.of(table), scan_tasks(table))["n"].to_pylist())


def test_a_commit_carries_rows_and_progress_together(lakehouse):
    table = lakehouse.table(SPEC)
    assert progress_of(table) == {}
    commit_files(table, write_files(TableFiles.of(table), rows(1, 2, 3)), {"offsets": {"t": {"0": 3}}})

    again = lakehouse.table(SPEC)
    assert read(again) == [1, 2, 3]
    assert progress_of(again) == {"offsets": {"t": {"0": 3}}}
    assert row_count(again) == 3


def test_progress_advances_without_a_single_row(lakehouse):
    table = lakehouse.table(SPEC)
    commit_files(table, [], {"next": 7})
    assert progress_of(lakehouse.table(SPEC)) == {"next": 7}
    assert row_count(lakehouse.table(SPEC)) == 0


def test_files_nobody_committed_are_invisible(lakehouse):
    table = lakehouse.table(SPEC)
    write_files(TableFiles.of(table), rows(1, 2))
    assert row_count(lakehouse.table(SPEC)) == 0


def test_of_two_runs_at_once_the_second_fails_and_writes_nothing(lakehouse):
    one, other = lakehouse.table(SPEC), lakehouse.table(SPEC)
    commit_files(one, write_files(TableFiles.of(one), rows(1)), {"next": 1})
    with pytest.raises(ConcurrentCommitError, match=r"silver\.sample: another run committed"):
        commit_files(other, write_files(TableFiles.of(other), rows(2)), {"next": 2})
    assert read(lakehouse.table(SPEC)) == [1]
    assert progress_of(lakehouse.table(SPEC)) == {"next": 1}


def test_new_files_are_those_after_the_snapshot(lakehouse):
    first = commit_files(lakehouse.table(SPEC), write_files(TableFiles.of(lakehouse.table(SPEC)), rows(1)), {})
    marker = first.current_snapshot().snapshot_id
    second = commit_files(first, write_files(TableFiles.of(first), rows(4, key="b")), {})
    (new,) = appended_files(second, marker)
    assert read_files(TableFiles.of(second), [new.file_path], ["n"])["n"].to_pylist() == [4]
    assert appended_files(second, second.current_snapshot().snapshot_id) == []
    assert len(appended_files(second, None)) == 2


def test_a_column_the_declaration_gains_is_added_and_null_before(lakehouse):
    table = lakehouse.table(SPEC)
    commit_files(table, write_files(TableFiles.of(table), rows(1)), {})
    wider = TableSpec(SPEC.name, SPEC.schema.append(pa.field("cdn", pa.string())), SPEC.partition)
    table = lakehouse.table(wider)
    assert read_tasks(TableFiles.of(table), scan_tasks(table))["cdn"].to_pylist() == [None]


def test_columns_are_matched_by_name_and_what_is_lacking_is_null(lakehouse):
    table = lakehouse.table(SPEC)
    shuffled = pa.table({"n": pa.array([5], pa.int32()), "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)], TIMESTAMP)})
    table = commit_files(table, write_files(TableFiles.of(table), shuffled), {})
    assert read_tasks(TableFiles.of(table), scan_tasks(table)).to_pylist() == [
        {"key": None, "at": datetime(2026, 1, 1, tzinfo=UTC), "n": 5}
    ]


def test_small_files_are_read_together(lakehouse):
    table = lakehouse.table(SPEC)
    for n in range(5):
        table = commit_files(table, write_files(TableFiles.of(table), rows(n)), {})
    groups = list(file_groups(scan_tasks(table), rows_per_group=2))
    assert [len(group) for group in groups] == [2, 2, 1]


def test_a_catalog_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "catalog.db").mkdir()
    with pytest.raises(LakehouseError, match="cannot be opened") as failure:
        Lakehouse.open(Settings(work_dir=tmp_path))
    assert "\n" not in str(failure.value)


def test_maps_survive_the_way_to_disk_and_back(lakehouse):
    kind = pa.map_(pa.string(), pa.int64())
    spec = TableSpec("silver.maps", pa.schema([pa.field("n", pa.int64()), pa.field("shares", kind)]))
    maps = [[("drama", 2), ("news", 1)], None, []]
    table = lakehouse.table(spec)
    sliced = pa.table({"n": [0, 1, 2, 3], "shares": pa.array([[("x", 9)], *maps], kind)}).slice(1)
    table = commit_files(table, write_files(TableFiles.of(table), sliced), {})
    found = read_tasks(TableFiles.of(table), scan_tasks(table)).sort_by("n")
    assert found["shares"].to_pylist() == maps
