"""A table that others fill as a source: each appended row once, by the door's rules, whatever comes between."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.types import StringType

from pipelines.clean import clean
from pipelines.ingest import ingest
from pipelines.lakehouse import commits
from pipelines.lakehouse.catalog import Lakehouse, LakehouseError
from pipelines.lakehouse.commits import ConcurrentCommitError, progress_of
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.scans import ExpiredSnapshotError
from pipelines.quarantine import unseal
from pipelines.replay import replay
from pipelines.secrets import quarantine_key
from pipelines.settings import IngestSettings, SourceSettings, TableMapping
from pipelines.sources import intake
from pipelines.sources.history import SourceReplacedError
from pipelines.sources.mapping import MappingError
from pipelines.sources.table import UnknownSourceError
from pipelines.table_source import ingest_table
from tests.platform import DAY, HOUR, SALT, T0, Platform, consent, described, event, hashed, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

NAME = "shop.raw.events"
COLUMNS = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("received", pa.timestamp("us")),  # without a zone
        pa.field("client_timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("source", pa.string()),
        pa.field("who", pa.struct([pa.field("user", pa.string()), pa.field("profile", pa.string())])),
        pa.field("session_id", pa.string()),
        pa.field("device_id", pa.string()),
        pa.field("market", pa.string()),
        pa.field("consent_analytics", pa.bool_()),
        pa.field("consent_personalization", pa.bool_()),
        pa.field("consent_ad_targeting", pa.bool_()),
        pa.field("content_id", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("playback_id", pa.string()),
        pa.field("position_ms", pa.int32()),  # an int64 in the contract
        pa.field("total_duration_ms", pa.string()),  # a number's text
        pa.field("completion_percent", pa.float64()),
        pa.field("stop_reason", pa.string()),
        pa.field("is_kids", pa.bool_()),
        pa.field("allows_analytics", pa.bool_()),
        pa.field("allows_personalization", pa.bool_()),
        pa.field("allows_ad_targeting", pa.bool_()),
        pa.field("warehouse_note", pa.string()),  # nothing of the contract
    ]
)
MAPPING = TableMapping(
    columns={"event_name": "kind", "event_timestamp": "received", "user_id": "who.user", "profile_id": "who.profile"}
)


class Shop:
    """Somebody else's table, and a platform that reads it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reel").mkdir()
        self.platform = Platform(folder / "reel")
        self.uri = f"sqlite:///{folder / 'shop.db'}"
        self.catalog = SqlCatalog("shop", uri=self.uri, warehouse=f"file://{folder / 'shop'}")
        self.catalog.create_namespace("raw")
        self.table = self.catalog.create_table("raw.events", COLUMNS)
        self.use(MAPPING)

    def use(self, mapping: TableMapping, **ingest_settings: int) -> None:
        source = SourceSettings(catalog="sql", uri=self.uri, tables={"raw.events": mapping})
        changed = {"sources": {"shop": source}, "ingest": IngestSettings(**ingest_settings)}
        self.platform.settings = self.platform.settings.model_copy(update=changed)

    def rows(self, *events: dict[str, Any]) -> pa.Table:
        return pa.Table.from_pylist([row_of(one) for one in events], schema=self.table.schema().as_arrow())

    def append(self, *events: dict[str, Any]) -> None:
        self.table.append(self.rows(*events))

    def compact(self) -> None:
        """All rows into one file, as Spark's rewrite_data_files does: a snapshot whose operation is `replace`."""
        stale = [task.file for task in self.table.scan().plan_files()]
        files = write_files(TableFiles.of(self.table), self.table.scan().to_arrow())
        with self.table.transaction() as transaction:
            rewriting = Rewriting(Operation.OVERWRITE, transaction, self.table.io)
            rewriting.delete_by_predicate(AlwaysTrue())  # else no manifest of an unpartitioned table would be looked at
            for file in stale:
                rewriting.delete_data_file(file)
            rewriting.append_data_file(*files)
            rewriting.commit()

    def ingest(self, **options: Any):
        return ingest_table(self.platform.settings, NAME, **options)

    def bronze(self) -> list[dict[str, Any]]:
        return self.platform.rows("bronze.events")

    def event_ids(self) -> Counter:
        return Counter(row["event_id"] for row in self.bronze())


def row_of(one: dict[str, Any]) -> dict[str, Any]:
    """An event of `tests.platform` as the shop writes it down."""
    row = dict(one)
    row["kind"] = row.pop("event_name")
    row["received"] = instant(row.pop("event_timestamp")).replace(tzinfo=None)
    row["client_timestamp"] = instant(row.get("client_timestamp"))
    row["who"] = {"user": row.pop("user_id", None), "profile": row.pop("profile_id", None)}
    if row.get("total_duration_ms") is not None:
        row["total_duration_ms"] = str(row["total_duration_ms"])
    return row


def instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)


class Rewriting(_OverwriteFiles):
    """pyiceberg calls every rewriting an `overwrite`; Spark and Flink call one that keeps the rows a `replace`."""

    def _commit(self):
        updates, requirements = super()._commit()
        summary = updates[0].snapshot.summary
        renamed = Summary(Operation.REPLACE, **summary.additional_properties)
        snapshot = updates[0].snapshot.model_copy(update={"summary": renamed})
        return (updates[0].model_copy(update={"snapshot": snapshot}), *updates[1:]), requirements


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("REEL_SALT", SALT)
    return Shop(tmp_path)


def playbacks(person: str, count: int, first: int = 0, **columns: Any) -> list[dict[str, Any]]:
    return [one for n in range(first, first + count) for one in watched(person, f"vod-{n}", T0 + n * HOUR, **columns)]


def ids(*events: dict[str, Any]) -> Counter:
    return Counter(one["event_id"] for one in events)


def test_rows_come_in_by_the_doors_rules_and_reach_silver(shop):
    events = [described("ann"), *watched("ann", "vod-1", T0)]
    shop.append(*events)
    report = shop.ingest()
    assert report.read == {"snapshots": 1, "messages": 3}
    assert report.wrote == {"bronze.events": 3, "privacy.profiles": 1}
    stopped = next(row for row in shop.bronze() if row["event_name"] == "playback.stopped")
    assert stopped["cluster_id"] == f"iceberg:{shop.table.metadata.table_uuid}"
    assert (stopped["topic"], stopped["partition"]) == ("client.playback", 0)
    assert stopped["event_timestamp"] == instant(T0)
    assert (stopped["position_ms"], stopped["total_duration_ms"]) == (600_000, 600_000)
    assert (stopped["user_id"], stopped["profile_id"]) == (hashed("ann"), hashed("ann-p"))
    assert clean(shop.platform.settings).wrote["silver.playback"] == 2


def test_each_snapshot_is_read_once_and_its_rows_are_numbered_through(shop):
    first, second, third = [described("ann")], playbacks("ann", 3), playbacks("ann", 2, first=3)
    shop.append(*first)
    shop.append(*second)
    shop.ingest()
    shop.append(*third)
    assert shop.ingest().read == {"snapshots": 1, "messages": 4}
    assert shop.ingest().read == {"snapshots": 0, "messages": 0}
    assert shop.event_ids() == ids(*first, *second, *third)
    assert sorted(row["offset"] for row in shop.bronze()) == list(range(11))


def test_small_portions_and_commits_give_the_same_rows_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("REEL_SALT", SALT)
    one, many = Shop(tmp_path / "one"), Shop(tmp_path / "many")
    many.use(MAPPING, messages_per_task=4, messages_per_commit=10)
    events = [described("ann"), *playbacks("ann", 20)]
    for start in range(0, len(events), 3):
        for shop in (one, many):
            shop.append(*events[start : start + 3])
    heard: list[int] = []
    planned: list[int] = []
    one.ingest()
    many.ingest(on_plan=planned.append, on_progress=heard.append)
    assert planned == [sum(heard)]
    assert sum(heard) == 2 * len(events)  # the registries' rows are looked for first
    assert many.event_ids() == one.event_ids() == ids(*events)
    assert sorted(row["offset"] for row in many.bronze()) == list(range(len(events)))
    bronze = Lakehouse.open(many.platform.settings).existing("bronze.events")
    assert sum("reel.progress" in snapshot.summary.additional_properties for snapshot in bronze.snapshots()) >= 5


def test_compaction_brings_nothing_and_is_gone_past(shop):
    events = [described("ann"), *playbacks("ann", 2)]
    for one in events:
        shop.append(one)
    shop.ingest()
    shop.compact()
    assert shop.table.current_snapshot().summary.operation.value == "replace"
    assert shop.ingest().read == {"snapshots": 0, "messages": 0}
    recorded = progress_of(Lakehouse.open(shop.platform.settings).existing("bronze.events"))["sources"][NAME]
    assert recorded["done"]["snapshot"] == shop.table.current_snapshot().snapshot_id
    more = playbacks("ann", 1, first=9)
    shop.append(*more)
    shop.ingest()
    assert shop.event_ids() == ids(*events, *more)


def test_rows_that_the_source_changes_or_deletes_are_said_and_not_read_again(shop, capsys):
    events = [described("ann"), *playbacks("ann", 3)]
    shop.append(*events)
    shop.ingest()
    assert capsys.readouterr().err == ""
    shop.table.delete(EqualTo("content_id", "vod-0"))  # rewrites the file: 7 rows taken away, 5 written
    more = playbacks("ann", 1, first=9)
    shop.append(*more)
    report = shop.ingest()
    assert report.read["messages"] == 2
    assert report.did["rows the source took away"] == 7
    assert report.did["rows the source wrote anew, not read"] == 5
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "shop.raw.events: 1 of its snapshots changed rows (7 taken away, 5 written in their place)" in said
    assert shop.event_ids() == ids(*events, *more)


def test_rows_deleted_before_the_first_reading_are_not_read(shop):
    events = [described("ann"), *playbacks("ann", 3)]
    shop.append(*events)
    shop.table.delete(EqualTo("content_id", "vod-0"))
    report = shop.ingest()
    assert shop.event_ids() == ids(*(one for one in events if one.get("content_id") != "vod-0"))
    assert not [fact for fact in report.did if "source" in fact]


def test_a_column_the_source_gains_or_renames_is_understood(shop):
    before, after = watched("ann", "vod-1", T0), watched("ann", "vod-2", T0 + HOUR)
    shop.append(described("ann"), *before)
    shop.ingest()
    with shop.table.update_schema() as change:
        change.add_column("app_version", StringType())
        change.rename_column("content_id", "title")
    renamed = [{**row_of(one), "app_version": "2.3.1"} for one in after]
    for row in renamed:
        row["title"] = row.pop("content_id")
    shop.table.append(pa.Table.from_pylist(renamed, schema=shop.table.schema().as_arrow()))
    shop.use(TableMapping(columns={**MAPPING.columns, "content_id": "title"}))
    shop.ingest()
    found = {row["event_id"]: (row["app_version"], row["content_id"]) for row in shop.bronze() if row["content_id"]}
    assert found == {
        **{one["event_id"]: (None, "vod-1") for one in before},
        **{one["event_id"]: ("2.3.1", "vod-2") for one in after},
    }


def test_consent_and_children_are_kept_as_from_kafka(shop):
    shop.append(
        # The description comes last, and holds all the same: people are read first.
        *playbacks("bob", 1, consent_analytics=False),
        *playbacks("tim", 1),
        *playbacks("eve", 1, consent_analytics=None, consent_personalization=None, consent_ad_targeting=None),
        described("bob"),
        described("tim", is_kids=True),
        described("eve"),
        consent("eve", T0 - DAY, allows_analytics=False),
    )
    report = shop.ingest()
    assert report.did["dropped: analytics_refused"] == 4  # Bob's by their own word, Eve's by what she said before
    rows = [row for row in shop.bronze() if row["event_name"].startswith("playback.")]
    assert len(rows) == 2
    assert all(row["is_kids"] and row["user_id"] is None and row["profile_id"] is None for row in rows)
    profiles = {row["profile_id"]: row["is_kids"] for row in shop.platform.rows("privacy.profiles")}
    assert profiles == {hashed("bob-p"): False, hashed("tim-p"): True, hashed("eve-p"): False}
    assert [row["user_id"] for row in shop.platform.rows("privacy.consents")] == [hashed("eve")]


def test_what_does_not_fit_is_set_aside_sealed_with_its_reason_and_stops_nothing(shop):
    good = [described("ann"), *watched("ann", "vod-1", T0)]
    stopped = good[-1]
    bad = {
        "unknown_event": stopped | {"event_id": "e1", "event_name": "playback.stoped"},
        "total_duration_ms_not_castable": stopped | {"event_id": "e2", "total_duration_ms": "ten minutes"},
        "missing_content_id": stopped | {"event_id": "e3", "content_id": None},
        "stop_reason_not_allowed": stopped | {"event_id": "e4", "stop_reason": "boredom"},
        "missing_session_id": stopped | {"event_id": "e5", "session_id": None},
        "missing_event_timestamp": stopped | {"event_id": "e6"},
        "not_finite": stopped | {"event_id": "e7", "completion_percent": float("nan")},
        "event_timestamp_out_of_range": stopped | {"event_id": "e8", "event_timestamp": -1},
        "ambiguous_event": event("recording.scheduled", T0) | {"event_id": "e9"},
    }
    rows = shop.rows(*good, *bad.values()).to_pylist()
    next(row for row in rows if row["event_id"] == "e6")["received"] = None
    shop.table.append(pa.Table.from_pylist(rows, schema=shop.table.schema().as_arrow()))
    report = shop.ingest()
    assert {name: n for name, n in report.did.items() if name.startswith("set aside")} == {
        f"set aside: {reason}": 1 for reason in bad
    }
    assert shop.event_ids() == ids(*good)
    key = AESGCM(quarantine_key(shop.platform.settings))
    quarantined = shop.platform.rows("quarantine.events")
    found = {row["reason"]: json.loads(unseal(key, row["encrypted_value"])) for row in quarantined}
    assert {reason: row["event_id"] for reason, row in found.items()} == {
        reason: row["event_id"] for reason, row in bad.items()
    }
    assert found["missing_content_id"]["who"] == {"user": "ann", "profile": "ann-p"}
    assert found["missing_content_id"]["received"] == instant(T0).replace(tzinfo=None).isoformat()
    assert "warehouse_note" not in found["missing_content_id"]  # nothing reads it
    topics = {row["reason"]: row["topic"] for row in quarantined}
    assert topics["unknown_event"] == "iceberg:shop.raw.events"
    assert topics["missing_content_id"] == "client.playback"
    offsets = [row["offset"] for row in (*quarantined, *shop.bronze())]
    assert sorted(offsets) == list(range(len(good) + len(bad)))
    assert all(b"ann" not in row["encrypted_value"] for row in quarantined)


@pytest.mark.parametrize("topic", ["client.recording", "recordings.events"])
def test_a_topic_says_which_of_two_events_of_one_name_is_meant(shop, topic):
    said = {
        "program_id": "p1",
        "channel_id": "c1",
        "recording_type": "single",
        "is_ai_suggested": False,
        "recording_source": "epg",
        "recording_id": "r1",
        "starts_at": "2026-01-05T20:00:00.123456+01:00",
    }
    shop.use(TableMapping(columns=MAPPING.columns, constants={"topic": topic, **said}))
    shop.append(event("recording.scheduled", T0, session_id="s1", consent_analytics=True))
    shop.ingest()
    (row,) = shop.bronze()
    assert row["topic"] == topic
    of_server = topic == "recordings.events"
    assert (row["recording_id"], row["recording_source"]) == (("r1", None) if of_server else (None, "epg"))
    assert row["starts_at"] == (datetime(2026, 1, 5, 19, 0, 0, 123_000, UTC) if of_server else None)


@pytest.mark.parametrize("failing_commit", [1, 2, 3, 4, 5, 6])
def test_killed_before_any_commit_each_row_still_comes_in_once(shop, monkeypatch, failing_commit):
    shop.use(MAPPING, messages_per_task=3, messages_per_commit=6)
    events = [described("ann"), described("bob"), consent("bob", T0), *playbacks("ann", 4)]
    bad = [one | {"stop_reason": "boredom", "event_id": f"bad-{n}"} for n, one in enumerate(playbacks("ann", 3)[1::2])]
    for start in range(0, len(events), 4):
        shop.append(*events[start : start + 4])
    shop.append(*bad)
    real, calls = intake.commit_files, []

    class Killed(BaseException):
        pass

    def commit(*arguments):
        calls.append(arguments)
        if len(calls) == failing_commit:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(intake, "commit_files", commit)
    with pytest.raises(Killed):
        shop.ingest()
    monkeypatch.setattr(intake, "commit_files", real)
    more = playbacks("ann", 1, first=50)
    shop.append(*more)
    shop.compact()
    shop.ingest()
    assert shop.event_ids() == ids(*events, *more)
    assert len(shop.platform.rows("privacy.profiles")) == 2
    assert len(shop.platform.rows("privacy.consents")) == 1
    quarantined = shop.platform.rows("quarantine.events")
    assert len(quarantined) == len(bad)
    offsets = sorted(row["offset"] for row in (*quarantined, *shop.bronze()))
    assert offsets == list(range(len(events) + len(bad) + len(more)))
    lakehouse = Lakehouse.open(shop.platform.settings)
    for pair in (("bronze.events", "quarantine.events"), ("privacy.profiles", "privacy.consents")):
        one, other = (progress_of(lakehouse.existing(name))["sources"][NAME] for name in pair)
        assert one == other
        assert one["done"]["snapshot"] == shop.table.current_snapshot().snapshot_id


def test_kafka_and_the_table_keep_each_others_progress(shop):
    shop.append(described("ann"), *playbacks("ann", 1))
    shop.platform.send(described("bob"), *playbacks("bob", 1))
    shop.ingest()
    ingest(shop.platform.settings)
    shop.append(*playbacks("ann", 1, first=1))
    shop.platform.send(*playbacks("bob", 1, first=1))
    assert ingest(shop.platform.settings).read["messages"] == 2
    assert shop.ingest().read["messages"] == 2
    assert len(shop.bronze()) == 10
    assert max(shop.event_ids().values()) == 1
    recorded = progress_of(Lakehouse.open(shop.platform.settings).existing("bronze.events"))
    assert {"cluster_id", "offsets", "sources"} == set(recorded)
    assert ingest(shop.platform.settings).read["messages"] == shop.ingest().read["messages"] == 0


def overtake(monkeypatch: pytest.MonkeyPatch, faster: Callable[[], object]) -> None:
    """Let `faster` run right before the next commit of the source's intake."""
    real = intake.commit_files

    def commit(*arguments):
        monkeypatch.setattr(intake, "commit_files", real)
        faster()
        return real(*arguments)

    monkeypatch.setattr(intake, "commit_files", commit)
    monkeypatch.setattr(commits, "LONGEST_PAUSE_S", 0.01)


def test_when_kafka_was_faster_the_tables_rows_go_on_top(shop, monkeypatch):
    shop.append(described("ann"), *playbacks("ann", 1))
    shop.platform.send(described("bob"), *playbacks("bob", 1))
    overtake(monkeypatch, lambda: ingest(shop.platform.settings))
    assert shop.ingest().wrote["bronze.events"] == 3
    assert len(shop.bronze()) == len(shop.event_ids()) == 6
    assert ingest(shop.platform.settings).read["messages"] == 0
    assert shop.ingest().read["messages"] == 0


def test_of_two_runs_of_one_source_the_slower_ends_and_nothing_is_doubled(shop, monkeypatch):
    shop.append(described("ann"), *playbacks("ann", 1))
    overtake(monkeypatch, shop.ingest)
    with pytest.raises(ConcurrentCommitError, match="another run committed"):
        shop.ingest()
    assert len(shop.bronze()) == len(shop.event_ids()) == 3
    assert shop.ingest().read["messages"] == 0


def expire(table: Table, *snapshots: int) -> Table:
    for snapshot in snapshots:
        table.maintenance.expire_snapshots().by_id(snapshot).commit()
    return table.refresh()


def test_an_expired_snapshot_stops_and_says_what_to_do_and_a_loss_can_be_accepted(shop):
    shop.append(described("ann"), *playbacks("ann", 1))
    shop.ingest()
    lost, kept = playbacks("ann", 1, first=1), playbacks("ann", 1, first=2)
    shop.append(*lost)
    shop.append(*kept)
    old = [snapshot.snapshot_id for snapshot in shop.table.snapshots()][:2]
    shop.table = expire(shop.table, *old)
    with pytest.raises(ExpiredSnapshotError, match=r"its owner has expired snapshot \d+.*--accept-lost"):
        shop.ingest()
    assert len(shop.bronze()) == 3
    assert shop.ingest(accept_lost=True).read["messages"] == 2
    assert max(shop.event_ids().values()) == 1
    assert {one["event_id"] for one in kept} <= set(shop.event_ids())
    assert not {one["event_id"] for one in lost} & set(shop.event_ids())
    origins = [row["offset"] for row in shop.bronze()]
    assert len(origins) == len(set(origins))
    shop.append(*playbacks("ann", 1, first=3))
    assert shop.ingest().read["messages"] == 2


def test_a_snapshot_that_expired_after_it_was_read_is_not_missed(shop):
    shop.append(described("ann"), *playbacks("ann", 1))
    shop.ingest()
    shop.append(*playbacks("ann", 1, first=1))
    shop.table = expire(shop.table, shop.table.snapshots()[0].snapshot_id)
    assert shop.ingest().read["messages"] == 2


def test_a_table_that_was_set_back_is_said(shop):
    shop.append(described("ann"))
    first = shop.table.current_snapshot().snapshot_id
    shop.append(*playbacks("ann", 1))
    shop.ingest()
    shop.table.manage_snapshots().rollback_to_snapshot(first).commit()
    with pytest.raises(ExpiredSnapshotError, match="the table was set back to before snapshot"):
        shop.ingest()
    assert shop.ingest(accept_lost=True).read["messages"] == 0
    more = playbacks("ann", 1, first=5)
    shop.table.refresh()
    shop.append(*more)
    assert shop.ingest().read["messages"] == 2
    assert max(shop.event_ids().values()) == 1


def test_a_table_that_was_dropped_and_made_anew_is_another(shop):
    shop.append(described("ann"))
    shop.ingest()
    shop.catalog.drop_table("raw.events")
    shop.table = shop.catalog.create_table("raw.events", COLUMNS, location=f"{shop.table.location()}-anew")
    shop.append(described("bob"))
    with pytest.raises(SourceReplacedError, match=r"shop\.raw\.events: rows of the table .* were read under this name"):
        shop.ingest()


def test_a_table_without_a_snapshot_has_nothing(shop):
    assert shop.ingest().read == {"snapshots": 0, "messages": 0}


def test_a_table_of_one_event_says_so_once(shop):
    columns = [(name, COLUMNS.field(name).type) for name in ("event_id", "received", "content_id")]
    own = [("name", pa.string()), ("genres", pa.list_(pa.string()))]
    titles = shop.catalog.create_table("raw.titles", pa.schema([*columns, *own]))
    one = {"event_id": "t1", "received": T0 * 1000, "content_id": "vod-1", "name": "X", "genres": ["drama"]}
    titles.append(pa.Table.from_pylist([one], schema=titles.schema().as_arrow()))
    mapping = TableMapping(
        columns={"event_timestamp": "received", "title": "name"},
        constants={"event_name": "title.added", "source": "SERVER", "content_type": "vod"},
    )
    source = SourceSettings(catalog="sql", uri=shop.uri, tables={"raw.titles": mapping})
    settings = shop.platform.settings.model_copy(update={"sources": {"shop": source}})
    report = ingest_table(settings, "shop.raw.titles")
    assert report.did == {"admitted: title.added": 1}, report
    (row,) = shop.bronze()
    assert (row["title"], row["content_type"], row["topic"]) == ("X", "vod", "catalog.changes")


def refused(shop: Shop, mapping: TableMapping, message: str) -> None:
    shop.use(mapping)
    with pytest.raises(MappingError, match=message) as failure:
        shop.ingest()
    assert "\n" not in str(failure.value)
    assert failure.value.exit_code == 2
    assert Lakehouse.open(shop.platform.settings).names() == ["privacy.audit"]


def test_a_mapping_that_cannot_be_is_one_line_before_anything_is_read(shop):
    columns = MAPPING.columns
    refused(
        shop,
        TableMapping(columns={**columns, "event_timestamp": None}),
        "every event has event_timestamp, and no column is mapped to it; did you mean 'client_timestamp'",
    )
    refused(
        shop,
        TableMapping(columns={**columns, "event_timestamp": "recieved"}),
        r"sources\.shop\.tables\.raw\.events\.columns\.event_timestamp: the source has no column 'recieved'; did you "
        "mean 'received'",
    )
    refused(
        shop, TableMapping(columns={**columns, "user_id": "who.usr"}), r"no column 'who\.usr'; did you mean 'who\.us"
    )
    refused(shop, TableMapping(columns={**columns, "user": "who.user"}), "has a column 'user'; did you mean 'user_id'")
    refused(
        shop, TableMapping(columns={**columns, "user_id": "who"}), "the column who is struct<.*cannot be read as user_"
    )
    refused(shop, TableMapping(columns=columns, constants={"position_ms": "far"}), "position_ms: 'far' is no int64")
    refused(shop, TableMapping(columns=columns, constants={"event_name": "x"}), "event_name has both")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shop", "a source is named CATALOG.NAMESPACE.TABLE; received 'shop'"),
        ("shop.events", "a source is named CATALOG.NAMESPACE.TABLE"),
        ("shop..events", "a source is named CATALOG.NAMESPACE.TABLE"),
        ("shap.raw.events", "no catalog 'shap' under `sources`; did you mean 'shop'"),
        ("shop.raw.event", r"'shop' has no table 'raw\.event'; did you mean 'raw\.events'; it has: raw\.events"),
        ("shop.rare.events", r"has no table 'rare\.events'"),
    ],
)
def test_a_source_that_is_not_there_is_named(shop, name, message):
    with pytest.raises(UnknownSourceError, match=message) as failure:
        ingest_table(shop.platform.settings, name)
    assert failure.value.exit_code == 2


def test_a_catalog_that_does_not_answer_is_one_line_without_its_password(shop, free_port):
    source = SourceSettings(catalog="sql", uri=f"postgresql+psycopg2://reel:hunter2@127.0.0.1:{free_port}/catalog")
    settings = shop.platform.settings.model_copy(update={"sources": {"shop": source}})
    with pytest.raises(LakehouseError, match=r"shop\.raw\.events: the Iceberg catalog at .* cannot be read") as failure:
        ingest_table(settings, NAME)
    assert "hunter2" not in str(failure.value)
    assert "\n" not in str(failure.value)


MISREAD = TableMapping(columns={**MAPPING.columns, "client_timestamp": "warehouse_note"})


def noted(shop: Shop, note: str, *events: dict[str, Any]) -> None:
    rows = [row | {"warehouse_note": note} for row in shop.rows(*events).to_pylist()]
    shop.table.append(pa.Table.from_pylist(rows, schema=shop.table.schema().as_arrow()))


def test_rows_set_aside_come_in_once_their_mapping_is_mended(shop, capsys):
    shop.use(MISREAD)
    good, late = [described("ann"), *watched("ann", "vod-1", T0)], [described("tim", is_kids=True)]
    late += [*watched("tim", "vod-2", T0), *watched("ann", "vod-3", T0 + HOUR)]
    shop.append(*good)
    noted(shop, "yesterday", *late)
    assert shop.ingest().did["set aside: client_timestamp_not_castable"] == len(late)
    assert replay(shop.platform.settings).wrote == {"bronze.events": 0}

    shop.use(MAPPING)
    more = shop.rows(*watched("ann", "vod-4", T0 + 2 * HOUR))
    shop.table.append(more)  # not ingested yet
    report = replay(shop.platform.settings)
    assert report.read == {"messages": len(late)}
    assert report.wrote == {"bronze.events": len(late), "privacy.profiles": 1}
    assert shop.event_ids() == ids(*good, *late)
    rows = {row["event_id"]: row for row in shop.bronze()}
    assert sorted(row["offset"] for row in rows.values()) == list(range(len(good) + len(late)))
    as_sent = rows[late[-1]["event_id"]]
    assert (as_sent["user_id"], as_sent["position_ms"]) == (hashed("ann"), 600_000)
    assert as_sent["event_timestamp"] == instant(T0 + HOUR)
    assert as_sent["cluster_id"] == f"iceberg:{shop.table.metadata.table_uuid}"
    child = rows[late[1]["event_id"]]  # described among what was set aside itself
    assert (child["is_kids"], child["user_id"], child["profile_id"]) == (True, None, None)
    assert shop.platform.rows("quarantine.events") == []
    assert replay(shop.platform.settings).read == {"messages": 0}
    assert shop.ingest().read["messages"] == more.num_rows
    assert capsys.readouterr().err == ""


def test_rows_of_a_source_that_cannot_be_opened_stay_and_it_is_said(shop, capsys):
    shop.use(MISREAD)
    noted(shop, "yesterday", *watched("ann", "vod-1", T0))
    shop.ingest()
    shop.platform.settings = shop.platform.settings.model_copy(update={"sources": {}})
    assert replay(shop.platform.settings).read == {"messages": 0}
    assert len(shop.platform.rows("quarantine.events")) == 2
    said = capsys.readouterr().err
    assert "rows of shop.raw.events stay set aside: no catalog 'shop' under `sources`" in said
    assert said.count("\n") == 1
