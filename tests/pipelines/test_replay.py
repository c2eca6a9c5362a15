"""Replay of quarantine: what a fix made good comes into bronze exactly once, whatever happens meanwhile."""

import io
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typer.testing import CliRunner

from pipelines import intake
from pipelines import replay as replaying
from pipelines.clean import clean
from pipelines.cli_quarantine import quarantine_app
from pipelines.contract.registry import open_registry
from pipelines.ingest import Ingestion, ingest
from pipelines.kafka.message import Headers
from pipelines.kafka.offsets import OffsetRange
from pipelines.lakehouse import lineage
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import ConcurrentCommitError, progress_of, replace_files
from pipelines.lakehouse.compaction import rewrite
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.inventory import inventory
from pipelines.lakehouse.tables import AUDIT
from pipelines.quarantine import BrokenSealError, unseal
from pipelines.quarantine_counts import SetAsideOn, quarantine_counts
from pipelines.replay import replay
from pipelines.secrets import quarantine_key
from pipelines.settings import IngestSettings
from tests.pipelines.event_rows import nested
from tests.platform import DAY, HOUR, SALT, T0, Platform, consent, described, hashed, title, watched

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
ORIGIN = ("cluster_id", "topic", "partition", "offset")
BRONZE, QUARANTINE = "bronze.events", "quarantine.events"


@dataclass
class Late(Platform):
    """A platform whose producers also use schemas that the registry gets to know only later."""

    unknown: dict[str, int] = field(default_factory=dict)  # event -> the id its schema will have

    def send_too_early(self, *events: dict[str, Any], headers: Headers | None = None) -> None:
        """Send events whose schemas are not registered yet, under the ids that they are going to have."""
        open_registry(self.settings.registry_location)
        with closing(sqlite3.connect(self.settings.registry_location)) as registry:
            (registered,) = registry.execute("SELECT COUNT(*) FROM schema").fetchone()
        for one in events:
            schema = self.contract.event(one["event_name"])
            schema_id = self.unknown.setdefault(schema.name, registered + len(self.unknown) + 1)
            body = io.BytesIO()
            row = {column.name: one.get(column.name) for column in schema.columns}
            fastavro.schemaless_writer(body, fastavro.parse_schema(json.loads(schema.avro_json)), nested(row))
            self.send_bytes(schema.topic, b"\0" + schema_id.to_bytes(4, "big") + body.getvalue(), headers=headers)

    def send_bytes(self, topic: str, *values: bytes | None, headers: Headers | None = None) -> None:
        """Send messages as they are."""
        self.log.append(topic, [b"k"] * len(values), values, [T0] * len(values), [headers] * len(values))

    def register(self) -> None:
        """What the producers forgot to do."""
        registry = open_registry(self.settings.registry_location)
        for name, schema_id in self.unknown.items():
            schema = self.contract.event(name)
            assert registry.register(schema.subject, schema.avro_json) == schema_id

    def fates(self) -> Counter[tuple[str, str, int, int]]:
        """How often each message is in bronze or in quarantine."""
        return Counter(
            tuple(row[name] for name in ORIGIN) for table in (BRONZE, QUARANTINE) for row in self.rows(table, ORIGIN)
        )

    def sent(self) -> set[tuple[str, str, int, int]]:
        """Every message in the log."""
        now = self.log.available(self.contract.topics)
        spans = [
            OffsetRange(topic, partition, *bounds)
            for topic, partitions in now.bounds.items()
            for partition, bounds in partitions.items()
        ]
        return {
            (now.cluster_id, span.topic, span.partition, offset)
            for span in spans
            for offset in range(span.start, span.end)
        }

    def reasons(self) -> Counter[str]:
        """What is in quarantine, by reason."""
        return Counter(row["reason"] for row in self.rows(QUARANTINE, ["reason"]))

    def state(self) -> dict[str, Any]:
        """The snapshots of all tables; the audit log's goes on with every run."""
        lakehouse = Lakehouse.open(self.settings)
        tables = {name: lakehouse.existing(name) for name in lakehouse.names() if name != AUDIT}
        return {name: table and table.metadata.current_snapshot_id for name, table in tables.items()}


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Late:
    monkeypatch.setenv("REEL_SALT", SALT)
    return Late(tmp_path)


def once(platform: Late) -> bool:
    """Every message is in one of the two tables, once."""
    return platform.fates() == Counter(platform.sent())


def some_are_too_early(platform: Late) -> None:
    """Two good events, four whose schemas nobody knows yet, one that never becomes good; ingested."""
    platform.send(described("ann"), described("bob"))
    platform.send_too_early(*watched("ann", "vod-1", T0), *watched("bob", "vod-2", T0 + HOUR))
    platform.send_bytes("client.playback", b"hello")
    ingest(platform.settings)
    assert platform.reasons() == {"unknown_schema_id": 4, "not_wire_format": 1}


def test_messages_whose_schema_was_registered_late_come_in_as_if_it_had_not_been(platform):
    some_are_too_early(platform)
    waiting = {tuple(row[name] for name in ORIGIN) for row in platform.rows(QUARANTINE) if row["schema_id"] is not None}
    bronze = Lakehouse.open(platform.settings).existing(BRONZE)
    progress = progress_of(bronze)
    platform.register()
    began = datetime.now(UTC)
    report = replay(platform.settings)

    assert report.read == {"messages": 5}
    assert report.did == {
        "can be read: playback.started": 2,
        "can be read: playback.stopped": 2,
        "still set aside: not_wire_format": 1,
    }
    assert report.wrote == {BRONZE: 4}
    assert once(platform)
    assert platform.reasons() == {"not_wire_format": 1}
    back = [row for row in platform.rows(BRONZE) if row["event_name"].startswith("playback.")]
    assert {tuple(row[name] for name in ORIGIN) for row in back} == waiting
    assert {row["user_id"] for row in back} == {hashed("ann"), hashed("bob")}
    assert all(row["ingested_at"] >= began.replace(microsecond=began.microsecond // 1000 * 1000) for row in back)
    assert progress_of(bronze.catalog.load_table(BRONZE)) == progress, "no offset was consumed by it"
    clean(platform.settings)
    assert len(platform.rows("silver.playback")) == 4


def test_what_is_brought_back_is_what_ingest_would_have_made_of_it(platform, tmp_path):
    some_are_too_early(platform)
    platform.register()
    replay(platform.settings)
    punctual = platform.settings.model_copy(update={"work_dir": tmp_path / "again"})
    for secret in ("quarantine.key", "salt"):
        shutil.copy(tmp_path / secret, (tmp_path / "again").mkdir(exist_ok=True) or tmp_path / "again" / secret)
    registry = platform.settings.registry.model_copy(update={"url": platform.settings.registry_location})
    punctual = punctual.model_copy(update={"registry": registry})
    ingest(punctual)
    replayed = platform.rows(BRONZE)
    platform.settings = punctual
    assert in_order(replayed) == in_order(platform.rows(BRONZE))


def in_order(rows):
    timeless = [{name: value for name, value in row.items() if name != "ingested_at"} for row in rows]
    return sorted(timeless, key=lambda row: (row["topic"], row["partition"], row["offset"]))


def test_an_event_that_the_contract_gained_comes_in_with_its_columns(platform, tmp_path):
    whole = platform.settings.schemas
    lacking = tmp_path / "schemas"
    shutil.copytree(whole, lacking)
    (lacking / "playback" / "PlaybackStopped.avsc").unlink()
    platform.send(described("ann"), *watched("ann", "vod-1", T0))
    platform.settings = platform.settings.model_copy(update={"schemas": lacking})
    ingest(platform.settings)
    assert platform.reasons() == {"unknown_event": 1}
    assert "stop_reason" not in platform.rows(BRONZE)[0]

    platform.settings = platform.settings.model_copy(update={"schemas": whole})
    assert replay(platform.settings).did == {"can be read: playback.stopped": 1}
    assert once(platform)
    assert platform.reasons() == {}
    (stopped,) = [row for row in platform.rows(BRONZE) if row["event_name"] == "playback.stopped"]
    assert stopped["stop_reason"] == "end_of_content"


def test_headers_come_back_with_their_message(platform):
    platform.send(described("ann"))
    platform.send_too_early(*watched("ann", "vod-1", T0), headers=[("trace_id", b"4bf9"), ("hop", b"1"), ("hop", b"2")])
    ingest(platform.settings)
    platform.register()
    replay(platform.settings)
    back = [row for row in platform.rows(BRONZE) if row["topic"] == "client.playback"]
    kept = [(one["key"], one["value"]) for one in back[0]["headers"]]
    assert kept == [("trace_id", b"4bf9"), ("hop", b"1"), ("hop", b"2")]
    assert [row["trace_id"] for row in back] == ["4bf9", "4bf9"]


def test_people_among_the_messages_are_known_before_anything_else_is_admitted(platform):
    platform.send(title("vod-1"))
    platform.send_too_early(described("tim", is_kids=True), *watched("tim", "vod-1", T0))
    ingest(platform.settings)
    assert platform.rows("privacy.profiles") == []
    platform.register()
    report = replay(platform.settings)
    assert report.wrote == {"privacy.profiles": 1, BRONZE: 3}
    assert [(row["profile_id"], row["is_kids"]) for row in platform.rows("privacy.profiles")] == [
        (hashed("tim-p"), True)
    ]
    back = [row for row in platform.rows(BRONZE) if row["topic"] == "client.playback"]
    assert len(back) == 2
    assert all(row["is_kids"] and row["user_id"] is None and row["profile_id"] is None for row in back)


def test_what_may_not_be_stored_leaves_quarantine_and_is_counted(platform):
    platform.send(described("ann"))
    platform.send_too_early(*watched("ann", "vod-1", T0, consent_analytics=False), *watched("ann", "vod-2", T0 + HOUR))
    ingest(platform.settings)
    platform.register()
    report = replay(platform.settings)
    assert report.did["dropped: analytics_refused"] == 2
    assert report.wrote == {BRONZE: 2}
    assert platform.reasons() == {}
    assert len(platform.rows(BRONZE)) == 3
    summary = Lakehouse.open(platform.settings).existing(QUARANTINE).current_snapshot().summary.additional_properties
    assert json.loads(summary["reel.counts"])["dropped analytics_refused"] == 2


def test_a_second_replay_does_nothing_and_messages_that_stay_are_not_touched(platform):
    some_are_too_early(platform)
    platform.register()
    replay(platform.settings)
    (stays,) = platform.rows(QUARANTINE)
    before = platform.state()
    again = replay(platform.settings)
    assert again.did == {"still set aside: not_wire_format": 1}
    assert again.wrote == {BRONZE: 0}
    assert platform.state() == before
    assert platform.rows(QUARANTINE) == [stays]
    assert unseal(AESGCM(quarantine_key(platform.settings)), stays["encrypted_value"]) == b"hello"


def test_a_dry_run_tells_and_changes_nothing(platform):
    some_are_too_early(platform)
    platform.send_too_early(consent("bob", T0))
    ingest(platform.settings)
    platform.register()
    before = platform.state()
    told = replay(platform.settings, dry_run=True)
    assert platform.state() == before
    assert told.wrote == {BRONZE: 0}
    assert told.did == replay(platform.settings).did


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"reasons": ["unknown_schema_id"]}, {"not_wire_format": 1}),
        ({"reasons": ["truncated", "not_wire_format"]}, {"unknown_schema_id": 4, "not_wire_format": 1}),
        ({"topics": ["user.events"]}, {"unknown_schema_id": 4, "not_wire_format": 1}),
        ({"topics": ["user.events", "client.playback"]}, {"not_wire_format": 1}),
        ({"reasons": ["unknown_schema_id"], "topics": ["client.playback"]}, {"not_wire_format": 1}),
    ],
)
def test_only_some_reasons_and_topics(platform, chosen, left):
    some_are_too_early(platform)
    platform.register()
    replay(platform.settings, **chosen)
    assert platform.reasons() == left
    assert once(platform)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("people_too", [False, True])
def test_killed_between_its_two_commits_it_goes_on(platform, monkeypatch, people_too):
    some_are_too_early(platform)
    if people_too:
        platform.send_too_early(consent("bob", T0))
        ingest(platform.settings)
    platform.register()

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "replace_files", killed)
        with pytest.raises(Killed):
            replay(platform.settings)
    assert max(platform.fates().values()) == 2, "bronze has them, and quarantine still does"
    report = replay(platform.settings)
    assert report.did["in bronze already"] == 4 + people_too
    assert report.wrote == {BRONZE: 0}
    assert once(platform)
    assert platform.reasons() == {"not_wire_format": 1}
    assert len(platform.rows("privacy.consents")) == people_too


def test_killed_before_its_first_commit_nothing_has_happened(platform, monkeypatch):
    some_are_too_early(platform)
    platform.register()
    before = platform.state()

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "commit_files", killed)
        with pytest.raises(Killed):
            replay(platform.settings)
    assert platform.state() == before
    replay(platform.settings)
    assert once(platform)


def before_commit(monkeypatch, act) -> None:
    """Let something happen after a replay has read and written, and before it commits."""
    real = replaying.commit_files

    def disturbed(table, *arguments, **options):
        monkeypatch.setattr(replaying, "commit_files", real)
        act()
        return real(table, *arguments, **options)

    monkeypatch.setattr(replaying, "commit_files", disturbed)


def test_an_ingest_that_commits_meanwhile_is_not_disturbed(platform, monkeypatch):
    some_are_too_early(platform)
    platform.register()

    def more():
        platform.send(*watched("ann", "vod-9", T0 + DAY))
        platform.send_bytes("client.playback", b"good-bye")
        ingest(platform.settings)

    before_commit(monkeypatch, more)
    replay(platform.settings)
    assert once(platform)
    assert platform.reasons() == {"not_wire_format": 2}
    assert ingest(platform.settings).read["messages"] == 0


def test_an_ingest_in_whose_middle_a_replay_commits_goes_on(platform):
    some_are_too_early(platform)
    platform.register()
    platform.send(*watched("ann", "vod-9", T0 + DAY))
    platform.send_bytes("client.playback", b"good-bye")
    reports = []

    def replay_once(messages: int) -> None:
        if not reports:
            reports.append(replay(platform.settings))

    Ingestion(platform.settings).run(on_progress=replay_once)
    assert reports[0].wrote == {BRONZE: 4}
    assert once(platform)
    assert platform.reasons() == {"not_wire_format": 2}


def test_of_two_replays_at_once_the_second_changes_nothing(platform, monkeypatch):
    some_are_too_early(platform)
    platform.register()
    before_commit(monkeypatch, lambda: replay(platform.settings))
    with pytest.raises(ConcurrentCommitError, match=r"bronze\.events: another run committed"):
        replay(platform.settings)
    assert once(platform)
    assert replay(platform.settings).wrote == {BRONZE: 0}
    assert once(platform)


def test_maintenance_that_rewrites_quarantine_meanwhile_costs_another_try(platform, monkeypatch):
    some_are_too_early(platform)
    platform.register()

    def compact():
        table = Lakehouse.open(platform.settings).existing(QUARANTINE)
        rewritten = rewrite(TableFiles.of(table), list(inventory(table, table.current_snapshot())))
        replace_files(table, rewritten.stale, rewritten.files)

    before_commit(monkeypatch, compact)
    with pytest.raises(ConcurrentCommitError, match=r"quarantine\.events"):
        replay(platform.settings)
    assert replay(platform.settings).did["in bronze already"] == 4
    assert once(platform)


def test_messages_that_bronze_has_not_read_yet_are_left_to_ingest(platform, monkeypatch):
    platform.send(described("ann"))
    platform.send_too_early(*watched("ann", "vod-1", T0))
    with monkeypatch.context() as patched:  # as if the run had ended between quarantine's commit and bronze's
        real = intake.commit_files
        patched.setattr(
            intake, "commit_files", lambda table, *rest: table if table.name()[0] == "bronze" else real(table, *rest)
        )
        ingest(platform.settings)
    assert platform.reasons() == {"unknown_schema_id": 2}
    platform.register()
    assert replay(platform.settings).read == {"messages": 0}
    ingest(platform.settings)
    assert len(platform.rows(BRONZE)) == 3
    assert replay(platform.settings).did["in bronze already"] == 2
    assert once(platform)


def test_many_portions_and_small_files_make_the_same(platform, monkeypatch):
    small = IngestSettings(messages_per_task=3, messages_per_commit=9)
    platform.settings = platform.settings.model_copy(update={"ingest": small})
    platform.send(described("ann"))
    for number in range(12):
        platform.send_too_early(*watched("ann", f"vod-{number}", T0 + number * DAY))
        platform.send_bytes("client.playback", b"junk %d" % number)
    ingest(platform.settings)
    platform.register()
    monkeypatch.setattr(replaying, "BYTES_PER_TASK", 1)
    heard = []
    report = replay(platform.settings, on_progress=lambda done, total: heard.append((done, total)))
    assert len(heard) > 3
    assert heard[-1] == (heard[-1][1],) * 2
    assert report.wrote == {BRONZE: 24}
    assert once(platform)
    assert platform.reasons() == {"not_wire_format": 12}


def test_another_key_opens_nothing_and_says_so(platform, monkeypatch):
    some_are_too_early(platform)
    platform.register()
    before = platform.state()
    monkeypatch.setenv("REEL_QUARANTINE_KEY", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    with pytest.raises(BrokenSealError, match="sealed with another key; set REEL_QUARANTINE_KEY"):
        replay(platform.settings)
    assert platform.state() == before


def test_nothing_was_ever_set_aside(platform):
    assert replay(platform.settings).read == {"messages": 0}
    assert quarantine_counts(platform.settings) == []
    platform.send(described("ann"))
    ingest(platform.settings)
    assert replay(platform.settings).read == {"messages": 0}
    assert quarantine_counts(platform.settings) == []


def test_its_commits_say_where_they_came_from(platform):
    some_are_too_early(platform)
    platform.register()
    lakehouse = Lakehouse.open(platform.settings)
    source = lakehouse.existing(QUARANTINE).metadata.current_snapshot_id
    replay(platform.settings)
    for name in (BRONZE, QUARANTINE):
        facts = lakehouse.existing(name).current_snapshot().summary.additional_properties
        assert facts[lineage.STATION] == "quarantine-replay"
        assert lineage.Inputs.from_json(facts[lineage.INPUTS]).tables == {QUARANTINE: source}


def test_what_is_in_quarantine_is_counted_by_day_topic_and_reason(platform):
    some_are_too_early(platform)
    platform.send_bytes("user.events", None, b"")
    ingest(platform.settings)
    (day,) = {row["ingested_at"].strftime("%Y-%m-%d") for row in platform.rows(QUARANTINE)}
    assert quarantine_counts(platform.settings) == [
        SetAsideOn(day, "client.playback", "not_wire_format", 1),
        SetAsideOn(day, "client.playback", "unknown_schema_id", 4),
        SetAsideOn(day, "user.events", "empty", 2),
    ]


def reel(platform: Late, *arguments: str) -> str:
    """What `reel quarantine` prints."""
    result = CliRunner().invoke(quarantine_app, arguments, obj=platform.settings)
    assert result.exception is None, result.exception
    return result.stdout


def test_the_commands_list_and_replay(platform):
    assert reel(platform, "list") == "quarantine is empty\n"
    assert json.loads(reel(platform, "list", "--json")) == []
    some_are_too_early(platform)
    platform.register()
    counts = quarantine_counts(platform.settings)
    assert json.loads(reel(platform, "list", "--json")) == [one._asdict() for one in counts]
    assert [line.split() for line in reel(platform, "list").splitlines()] == [
        ["day", "topic", "reason", "messages"],
        *([one.day, one.topic, one.reason, str(one.messages)] for one in counts),
    ]
    told = json.loads(reel(platform, "replay", "--dry-run", "--reason", "unknown_schema_id", "--json"))
    assert (told["read"], told["wrote"]) == ({"messages": 4}, {BRONZE: 0})
    done = json.loads(reel(platform, "replay", "--topic", "client.playback", "--json"))
    assert (done["read"], done["wrote"]) == ({"messages": 5}, {BRONZE: 4})
    assert once(platform)
