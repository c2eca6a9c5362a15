"""One behaviour, whatever keeps the tables and wherever the files lie: every catalog, every warehouse."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.exceptions import ServiceUnavailableError

from pipelines.lakehouse import commits
from pipelines.lakehouse.audit import AuditLog
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.commits import CommitRefusedError, ConcurrentCommitError, commit_files, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.history import Edit, Rewriting
from pipelines.lakehouse.orphans import remove_orphans
from pipelines.lakehouse.scans import appended_files, read_files, scan_tasks
from pipelines.maintain import maintain
from pipelines.privacy.audit import records, verify
from pipelines.settings import LakehouseSettings, Settings, SourceSettings, TableMapping
from pipelines.table_source import ingest_table
from tests.pipelines.lakehouse.servers.iceberg_rest import RestCatalogs
from tests.pipelines.lakehouse.servers.s3 import S3
from tests.pipelines.lakehouse.stream import BRONZE, COLUMNS, append, follow, rows
from tests.platform import SALT, T0, Platform, described, hashed, title, watched

# Every catalog and every warehouse; a REST catalog may hand out the warehouse's credentials, so with both.
PLACES = (("sqlite", "disk"), ("postgres", "s3"), ("rest", "disk"), ("rest", "s3"))
NOW_MS = 1_770_000_000_000


def lakehouse_settings(request: pytest.FixtureRequest, catalog: str, warehouse: str, folder: Path) -> LakehouseSettings:
    """Settings of an empty lakehouse on the catalog and the warehouse of these names."""
    properties: dict[str, str] = {}
    location = f"file://{folder / 'warehouse'}"
    if warehouse == "s3":
        server: S3 = request.getfixturevalue("s3_server")
        properties = server.properties
        location = f"s3://{server.bucket}/{uuid.uuid4().hex}"
    if catalog == "rest":
        servers: RestCatalogs = request.getfixturevalue("rest_servers")
        uri = servers.on_s3 if warehouse == "s3" else servers.on_disk
        return LakehouseSettings(catalog="rest", uri=uri, properties=properties)
    if catalog == "postgres":
        return LakehouseSettings(
            catalog="sql", uri=request.getfixturevalue("postgres_uri"), warehouse=location, properties=properties
        )
    return LakehouseSettings(catalog="sql", warehouse=location, properties=properties)


@pytest.fixture(params=PLACES, ids="-".join)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    chosen = Settings(work_dir=tmp_path, lakehouse=lakehouse_settings(request, *request.param, tmp_path))
    forget_tables(Lakehouse.open(chosen))
    return chosen


def forget_tables(lakehouse: Lakehouse) -> None:
    """The servers outlive a test; its tables must not."""
    for name in lakehouse.names():
        lakehouse.catalog.drop_table(name)


@pytest.fixture
def lakehouse(settings: Settings) -> Lakehouse:
    return Lakehouse.open(settings)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "LONGEST_PAUSE_S", 0.01)


def numbers(lakehouse: Lakehouse) -> list[int]:
    """The rows of bronze, a file named twice counted twice."""
    table = lakehouse.table(BRONZE)
    paths = [task.file.file_path for task in scan_tasks(table)]
    return sorted(read_files(TableFiles.of(table), paths, ["n"])["n"].to_pylist()) if paths else []


def test_a_table_is_made_on_first_use_and_found_again(settings, lakehouse):
    made = lakehouse.table(BRONZE)
    again = Lakehouse.open(settings)
    assert again.table(BRONZE).metadata.table_uuid == made.metadata.table_uuid
    assert again.names() == ["bronze.events"]
    assert [field.name for field in made.spec().fields] == ["event_timestamp_day", "event_name_identity"]
    assert made.schema().as_arrow().field("n").type == pa.int64()
    assert again.existing("bronze.nothing") is None
    assert again.existing("nowhere.nothing") is None
    wider = BRONZE.__class__(BRONZE.name, COLUMNS.append(pa.field("cdn", pa.string())), BRONZE.partition)
    assert "cdn" in again.table(wider).schema().column_names


def test_several_that_make_a_table_at_once_make_one(settings, lakehouse):
    barrier = threading.Barrier(3)
    made: list[object] = []

    def make() -> None:
        own = Lakehouse.open(settings)
        barrier.wait()
        made.append(own.table(BRONZE).metadata.table_uuid)

    run_all(make, make, make)
    assert made == [lakehouse.table(BRONZE).metadata.table_uuid] * 3


def run_all(*work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def noted(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=noted, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_commit_carries_rows_and_progress_together(settings, lakehouse):
    append(lakehouse, BRONZE, rows(range(4), NOW_MS), next=4)
    append(lakehouse, BRONZE, rows(range(4, 6), NOW_MS, "tile.click"), next=6)
    again = Lakehouse.open(settings)
    assert numbers(again) == list(range(6))
    assert progress_of(again.table(BRONZE)) == {"next": 6}
    assert progress_of(commit_files(again.table(BRONZE), [], {"next": 7})) == {"next": 7}
    assert numbers(again) == list(range(6))


def test_of_many_commits_at_once_exactly_one_wins(settings, lakehouse):
    planned = [Lakehouse.open(settings).table(BRONZE) for _ in range(4)]
    barrier = threading.Barrier(len(planned))
    won: list[int] = []
    lost: list[int] = []

    def commit(number: int) -> None:
        table = planned[number]
        files = write_files(TableFiles.of(table), rows(range(number, number + 1), NOW_MS))
        barrier.wait()
        try:
            commit_files(table, files, {"next": number})
            won.append(number)
        except ConcurrentCommitError:
            lost.append(number)

    run_all(*(lambda number=number: commit(number) for number in range(len(planned))))
    assert len(won) == 1
    assert len(lost) == 3
    assert numbers(lakehouse) == won
    assert progress_of(lakehouse.table(BRONZE)) == {"next": won[0]}


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_catalog_refused_or_did_not_answer_is_neither_lost_nor_doubled(lakehouse, when):
    table = append(lakehouse, BRONZE, rows(range(2), NOW_MS), next=2)
    files = write_files(TableFiles.of(table), rows(range(2, 3), NOW_MS))
    real = lakehouse.catalog.commit_table
    failures = iter([ServiceUnavailableError("busy"), OSError("reset")])

    def unreliable(*arguments, **named):
        if when == "after":
            real(*arguments, **named)
        for failure in failures:
            raise failure
        return real(*arguments, **named)

    lakehouse.catalog.commit_table = unreliable
    table = commit_files(table, files, {"next": 3})
    lakehouse.catalog.commit_table = real
    assert numbers(lakehouse) == [0, 1, 2]
    assert progress_of(lakehouse.table(BRONZE)) == progress_of(table) == {"next": 3}


def test_a_catalog_that_takes_no_commit_is_one_line(lakehouse):
    table = append(lakehouse, BRONZE, rows(range(2), NOW_MS), next=2)
    real = lakehouse.catalog.commit_table

    def refuse(*arguments, **named):
        raise ServiceUnavailableError("read-only")

    lakehouse.catalog.commit_table = refuse
    files = write_files(TableFiles.of(table), rows(range(2, 3), NOW_MS))
    with pytest.raises(CommitRefusedError, match=r"bronze\.events: the catalog took no commit in 8 attempts"):
        commit_files(table, files, {"next": 3})
    lakehouse.catalog.commit_table = real
    assert numbers(lakehouse) == [0, 1]
    commit_files(lakehouse.table(BRONZE), files, {"next": 3})
    assert numbers(lakehouse) == [0, 1, 2]


@pytest.mark.usefixtures("ray_session")
def test_maintenance_keeps_every_row_in_fewer_files(settings, lakehouse):
    for number in range(6):
        append(lakehouse, BRONZE, rows(range(number * 3, number * 3 + 3), NOW_MS))
    follow(lakehouse)
    kept_forever = settings.lakehouse.model_copy(
        update={"bronze_retention_days": 36_500, "silver_retention_days": 36_500}
    )
    report = maintain(settings.model_copy(update={"lakehouse": kept_forever}), ["bronze.events"])
    assert report.did["bronze.events: files replaced"] == 6
    assert numbers(lakehouse) == list(range(18))
    assert len(scan_tasks(lakehouse.table(BRONZE))) == 1


def test_orphans_are_deleted_and_nothing_else(settings, lakehouse):
    table = append(lakehouse, BRONZE, rows(range(3), NOW_MS))
    remove_orphans(table, older_than_ms=NOW_MS * 10)  # a REST catalog puts a table where one of its name has been
    write_files(TableFiles.of(table), rows(range(3, 6), NOW_MS))  # never committed
    deleted, size_bytes = remove_orphans(table, older_than_ms=NOW_MS * 10)
    assert deleted == 1
    assert size_bytes > 0
    assert numbers(Lakehouse.open(settings)) == [0, 1, 2]
    assert remove_orphans(table, older_than_ms=NOW_MS * 10) == (0, 0)
    written = write_files(TableFiles.of(table), rows(range(3, 6), NOW_MS))
    assert remove_orphans(table, older_than_ms=NOW_MS) == (0, 0), "younger than the safe age"
    commit_files(table, written, {})
    assert numbers(Lakehouse.open(settings)) == list(range(6))


@pytest.mark.usefixtures("ray_session")
def test_a_table_of_another_catalog_is_a_source(request, settings, lakehouse, tmp_path, monkeypatch):
    """The source lies where the lakehouse of this test would; Reel's own is on disk beside it."""
    monkeypatch.setenv("REEL_SALT", SALT)
    (tmp_path / "own").mkdir()
    platform = Platform(tmp_path / "own")
    events = [described("ann"), *watched("ann", "vod-1", T0), title("vod-1", "drama")]
    schema = pa.unify_schemas([platform.contract.event(one["event_name"]).arrow for one in events])
    nullable = pa.schema([pa.field(field.name, stored(field.type)) for field in schema])
    lakehouse.catalog.create_namespace_if_not_exists("shop")
    shop = lakehouse.catalog.create_table("shop.events", nullable)
    chosen = settings.lakehouse
    source = SourceSettings(
        catalog=chosen.catalog,
        name="reel",
        uri=chosen.uri or f"sqlite:///{tmp_path / 'catalog.db'}",
        warehouse=chosen.warehouse,
        properties=chosen.properties,
        tables={"shop.events": TableMapping()},
    )
    reading = platform.settings.model_copy(update={"sources": {"theirs": source}})
    assert ingest_table(reading, "theirs.shop.events").read["messages"] == 0
    for one in events:
        shop.append(pa.Table.from_pylist([one], schema=nullable))
    assert ingest_table(reading, "theirs.shop.events").wrote == {"bronze.events": 4, "privacy.profiles": 1}
    assert ingest_table(reading, "theirs.shop.events").read["messages"] == 0
    bronze = platform.rows("bronze.events", ["event_id", "user_id", "genres", "event_name"])
    assert sorted(row["event_id"] for row in bronze) == sorted(one["event_id"] for one in events)
    assert {row["user_id"] for row in bronze} == {hashed("ann"), None}
    assert [row["genres"] for row in bronze if row["event_name"] == "title.added"] == [["drama"]]


def stored(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind


@pytest.mark.parametrize("catalog", ["sql", "rest"])
def test_a_catalog_nobody_answers_for_is_one_line(tmp_path, free_port, catalog):
    address = f"127.0.0.1:{free_port}"
    uri = f"http://{address}" if catalog == "rest" else f"postgresql+psycopg2://reel@{address}/catalog"
    with pytest.raises(LakehouseError, match=r"the Iceberg catalog at .* cannot be opened") as failure:
        Lakehouse.open(Settings(work_dir=tmp_path, lakehouse=LakehouseSettings(catalog=catalog, uri=uri)))
    assert "\n" not in str(failure.value)


def test_two_writers_of_the_audit_log_make_one_chain(settings):
    def write(who: str) -> None:
        log = AuditLog(settings)
        for number in range(4):
            log.add({"who": who, "outcome": "completed", "n": number})

    with ThreadPoolExecutor(2) as writers:
        list(writers.map(write, ("one", "other")))
    assert verify(settings).records == 8
    assert sorted((one["who"], one["n"]) for one in records(settings)) == [
        (who, number) for who in ("one", "other") for number in range(4)
    ]


def test_a_history_is_written_anew_and_gone_on_with(settings, lakehouse):
    """Every snapshot keeps its id and loses the odd rows of the first commit; appends go on from there."""
    first = append(lakehouse, BRONZE, rows(range(10), NOW_MS), next=1)
    append(lakehouse, BRONZE, rows(range(10, 20), NOW_MS), next=2)
    table = lakehouse.table(BRONZE)
    ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    files = TableFiles.of(table)
    stale = [task.file for task in first.scan().plan_files()]
    found = [(file, read_files(files, [file.file_path], COLUMNS.names)) for file in stale]
    kept = [(file, held.filter(pa.array([n % 2 == 0 for n in held["n"].to_pylist()]))) for file, held in found]
    edit = Edit({file.file_path: write_files(files, left)[0] for file, left in kept}, [], lambda bound: False)
    rewriting = Rewriting(edit, {"said": "so"}, table.io)
    after = rewriting.commit(table)
    assert rewriting.delete_stale() >= 3  # data, a manifest and its list
    assert [snapshot.snapshot_id for snapshot in lakehouse.table(BRONZE).metadata.snapshots][:2] == ids
    assert after.current_snapshot().summary["said"] == "so"
    evens = [0, 2, 4, 6, 8]
    for snapshot_id, expected in zip(ids, (evens, [*evens, *range(10, 20)]), strict=True):
        seen = after.scan(snapshot_id=snapshot_id).to_arrow()["n"].to_pylist()
        assert sorted(seen) == expected
        assert progress_of(after, snapshot_id) == {"next": ids.index(snapshot_id) + 1}
    append(lakehouse, BRONZE, rows(range(20, 25), NOW_MS), next=3)
    assert numbers(lakehouse) == [*evens, *range(10, 25)]
    assert [file.record_count for file in appended_files(lakehouse.table(BRONZE), ids[1])] == [5]
    assert maintain(settings).read == {"tables": 2}  # it, and the audit log
