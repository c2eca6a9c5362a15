"""A table's history written anew: every snapshot as it was, less what was taken out."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files, progress_of, replace_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.history import (
    ERASED_ROWS,
    Edit,
    Rewriting,
    files_of_history,
    named_files,
)
from pipelines.lakehouse.scans import appended_files, live_files, read_snapshot
from pipelines.lakehouse.tables import TableSpec
from pipelines.settings import Settings

SCHEMA = pa.schema([pa.field("day", pa.int32()), pa.field("who", pa.string()), pa.field("n", pa.int64())])
PLAIN, CUT = TableSpec("test.plain", SCHEMA), TableSpec("test.cut", SCHEMA, (("day", "identity"),))
GONE = "0123456789abcdef" * 4


def rows(*pairs: tuple[str, int], day: int = 1) -> pa.Table:
    return pa.table({"day": [day] * len(pairs), "who": [w for w, _ in pairs], "n": [n for _, n in pairs]}, SCHEMA)


def append(table: Table, data: pa.Table, **progress: int) -> Table:
    return commit_files(table, write_files(TableFiles.of(table), data), progress or None)


def as_of(table: Table, snapshot_id: int) -> list[tuple[str, int]]:
    found = read_snapshot(table, snapshot_id, SCHEMA).to_pylist()
    return sorted((row["who"], row["n"]) for row in found)


def without(table: Table, who: str) -> Edit:
    """Every file of the table's history that has a row of `who`, rewritten without; by the files themselves."""
    files: dict[str, DataFile | None] = {}
    for file in files_of_history(table):
        found = pq.read_table(file.file_path.removeprefix("file://")).to_pylist()
        left = [row for row in found if row["who"] != who]
        if len(left) < len(found):
            new = write_files(TableFiles.of(table), pa.Table.from_pylist(left, SCHEMA)) if left else []
            files[file.file_path] = new[0] if new else None
    return Edit(files, [table.schema().find_field("who").field_id], lambda bound: bound[:15] == who[:15].encode())


@pytest.fixture(params=[PLAIN, CUT], ids=["plain", "cut"])
def world(request, tmp_path: Path) -> Table:
    """Appends, a commit without a file, an overwrite, and another append on top."""
    table = Lakehouse.open(Settings(work_dir=tmp_path)).table(request.param)
    table = append(table, rows(("ann", 1), (GONE, 2)), step=1)
    table = append(table, rows((GONE, 3), day=2), step=2)
    table = commit_files(table, [], {"step": 3})
    table = append(table, rows(("ann", 4), ("bob", 5)), step=4)
    stale = [file for file in live_files(table) if file.record_count == 2]
    fresh = write_files(TableFiles.of(table), rows(("ann", 1), (GONE, 2), ("ann", 4), ("bob", 5)))
    table = replace_files(table, stale, fresh)
    return append(table, rows(("bob", 6), (GONE, 7)), step=5)


def test_every_snapshot_is_as_it_was_less_what_was_taken_out(world):
    before = {s.snapshot_id: as_of(world, s.snapshot_id) for s in world.metadata.snapshots}
    progress = {one: progress_of(world, one) for one in before}
    ids = [s.snapshot_id for s in world.metadata.snapshots]
    after = Rewriting(without(world, GONE), {"said": "so"}, world.io).commit(world)

    assert [s.snapshot_id for s in after.metadata.snapshots][:-1] == ids
    for one, was in before.items():
        assert as_of(after, one) == [row for row in was if row[0] != GONE]
        assert progress_of(after, one) == progress[one]
    top = after.current_snapshot()
    assert (top.summary["said"], top.summary.operation.value, top.parent_snapshot_id) == ("so", "replace", ids[-1])
    assert as_of(after, top.snapshot_id) == as_of(after, ids[-1])
    assert progress_of(after) == {"step": 5}


def test_summaries_count_what_is_there(world):
    after = Rewriting(without(world, GONE), {}, world.io).commit(world)
    for snapshot in after.metadata.snapshots:
        named = [f for m in snapshot.manifests(after.io) for f in m.fetch_manifest_entry(after.io)]
        rows_there = sum(one.data_file.record_count for one in named)
        size = sum(one.data_file.file_size_in_bytes for one in named)
        said = snapshot.summary.additional_properties
        assert int(said["total-records"]) == rows_there == len(as_of(after, snapshot.snapshot_id))
        assert int(said["total-data-files"]) == len(named)
        assert int(said["total-files-size"]) == size
    assert [s.summary[ERASED_ROWS] for s in after.metadata.snapshots] == ["1", "1", None, None, "1", "1", None]


def test_followers_go_on_from_where_they_were(world):
    third, last = world.metadata.snapshots[2].snapshot_id, world.metadata.snapshots[-1].snapshot_id
    after = append(Rewriting(without(world, GONE), {}, world.io).commit(world), rows(("eve", 8)))
    new = [pq.read_table(f.file_path.removeprefix("file://"))["n"].to_pylist() for f in appended_files(after, third)]
    assert sorted(n for some in new for n in some) == [4, 5, 6, 8]
    assert [f.record_count for f in appended_files(after, last)] == [1]
    stale = [file for file in live_files(after) if file.record_count == 1]
    assert as_of(replace_files(after, stale, []), after.catalog.load_table(after.name()).current_snapshot().snapshot_id)


def test_nothing_of_it_is_left_in_any_byte_and_only_what_was_named_is_deleted(world, tmp_path):
    folder = Path(world.location().removeprefix("file://"))
    writing = write_files(TableFiles.of(world), rows(("ann", 9)))[0]  # of a run that has not committed yet
    rewriting = Rewriting(without(world, GONE), {}, world.io)
    after = rewriting.commit(world)
    assert rewriting.delete_stale() > 0
    assert rewriting.delete_stale() == 0
    assert Path(writing.file_path.removeprefix("file://")).exists()
    for path in folder.rglob("*.parquet"):
        assert GONE not in json.dumps(pq.read_table(path).to_pylist())
        assert GONE[:16].encode() not in path.read_bytes()
    for manifest in {m.manifest_path: m for s in after.metadata.snapshots for m in s.manifests(after.io)}.values():
        for entry in manifest.fetch_manifest_entry(after.io, discard_deleted=False):
            for bounds in (entry.data_file.lower_bounds, entry.data_file.upper_bounds):
                assert not any(bound[:15] == GONE[:15].encode() for bound in (bounds or {}).values())
    on_disk = {path for path in folder.rglob("*") if path.suffix in {".parquet", ".avro"}}
    named = {Path(path.removeprefix("file://")) for path in named_files(after)}
    assert on_disk - named == {Path(writing.file_path.removeprefix("file://"))}


def test_a_commit_that_comes_between_is_kept(world):
    edit = without(world, GONE)
    append(world.catalog.load_table(world.name()), rows(("eve", 8)))
    after = Rewriting(edit, {}, world.io).commit(world)
    assert ("eve", 8) in as_of(after, after.current_snapshot().snapshot_id)
    assert all(who != GONE for s in after.metadata.snapshots for who, _ in as_of(after, s.snapshot_id))


def test_of_a_history_that_names_nothing_of_it_nothing_changes(world):
    after = Rewriting(Edit({"elsewhere": None}, [2], lambda bound: False), {}, world.io).commit(world)
    assert after.metadata_location == world.metadata_location
