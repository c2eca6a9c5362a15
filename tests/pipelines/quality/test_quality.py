"""Every check of spec 11.1: silent in a healthy world, and it alone turns when its own defect is planted."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from pipelines.lakehouse import tables
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import commit_files
from pipelines.lakehouse.files import TableFiles, write_files
from pipelines.lakehouse.tables import TIMESTAMP, TableSpec
from pipelines.quality.record import newest_findings
from pipelines.quality.results import Check, Status
from pipelines.quality.station import quality
from pipelines.quality.subject import Platform
from pipelines.settings import QualitySettings, Settings
from tests.pipelines.quality.world import END, HOUR, INGESTED, MINUTE, WEEK, World, healthy, of, turned

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
WARN, FAIL = Status.WARN, Status.FAIL


@pytest.mark.parametrize("partition", ["hour", "month"])
def test_a_healthy_world_is_ok_in_every_check(tmp_path, partition):
    run = healthy(tmp_path, partition=partition).judge()
    assert turned(run) == set()
    assert {one.check for one in run.findings.results} == set(Check)
    assert of(run, "volume", "client.playback").detail == "0 of 3 compared hours differ too much"
    assert of(run, "timestamps", "silver.playback").detail == "0 of 36 client timestamps are flagged unreliable"
    assert of(run, "references", "silver.recommendations.content_ids").detail.startswith("0 of 72 references")
    assert of(run, "references", "silver.live.previous_channel_id").detail.startswith("0 of 0 references")


def unreadable(world: World) -> None:
    world.set_aside("client.playback", "unknown_schema_id")


def without_session(world: World) -> None:
    world.set_aside("client.playback", "missing_session_id")


def wrong_clock(world: World) -> None:
    for row in world.silver["silver.playback"][-3:]:
        row["client_timestamp_reliable"] = False


def sent_again(world: World) -> None:
    row = world.bronze[-3]
    world.receive("playback.started", row["event_timestamp"], event_id=row["event_id"], content_id="vod-1")


def twice_in_silver(world: World) -> None:
    world.silver["silver.live"].append(dict(world.silver["silver.live"][-1]))


def read_twice(world: World) -> None:
    again = {**world.bronze[-3], "event_id": "another"}
    world.bronze.append(again)
    world.uncounted.append(again)


def forgotten(world: World) -> None:
    world.without_fate = 1
    world.origin("client.live")


def nothing_there(world: World) -> None:
    world.origin("client.live")  # consumed, and no message came of it


def emptied(world: World) -> None:
    world.bronze[-3]["content_id"] = None


def unknown_title(world: World) -> None:
    world.silver["silver.playback"][-1]["content_id"] = "vod-2"


def unknown_in_a_list(world: World) -> None:
    world.silver["silver.recommendations"][-1]["content_ids"] = ["vod-1", "vod-7", "vod-8"]


def unknown_channel(world: World) -> None:
    world.silver["silver.live"][-1]["previous_channel_id"] = "vod-1"  # a title, and no channel


def fewer(world: World) -> None:
    gone = [row for row in world.bronze if row["topic"] == "client.live" and row["event_timestamp"] >= END - HOUR][:7]
    world.bronze = [row for row in world.bronze if row not in gone]
    world.dropped += len(gone)


def more(world: World) -> None:
    for second in range(7):
        world.receive("channel.tune", END - HOUR - 1 - second, event_id=f"more-{second}", channel_id="ch-1")


def silent(world: World) -> None:
    last = world.bronze[-2]
    assert last["topic"] == "client.live"
    last["event_timestamp"] -= 10 * MINUTE  # so that the one before it, five minutes older, is the last


PLANTED: list[tuple[Callable[[World], None], set[tuple[str, str, Status]]]] = [
    (
        unreadable,
        {(("schema_rejects"), subject, WARN) for subject in ("client.playback", "client.playback/unknown_schema_id")},
    ),
    (
        without_session,
        {("missing_fields", subject, WARN) for subject in ("client.playback", "client.playback/missing_session_id")},
    ),
    (wrong_clock, {("timestamps", "silver.playback", WARN)}),
    (sent_again, {("duplicates", "client.playback", WARN)}),
    (twice_in_silver, {("duplicates", "silver.live", FAIL)}),
    (read_twice, {("exactly_once", "client.playback", FAIL), ("exactly_once", "bronze.events", FAIL)}),
    (forgotten, {("exactly_once", "bronze.events", FAIL), ("exactly_once", "quarantine.events", FAIL)}),
    (nothing_there, {("exactly_once", "bronze.events", WARN), ("exactly_once", "quarantine.events", WARN)}),
    (emptied, {("missing_fields", "playback.started", FAIL)}),
    (unknown_title, {("references", "silver.playback.content_id", WARN)}),
    (unknown_in_a_list, {("references", "silver.recommendations.content_ids", WARN)}),
    (unknown_channel, {("references", "silver.live.previous_channel_id", WARN)}),
    (fewer, {("volume", "client.live", WARN)}),
    (more, {("volume", "client.live", WARN)}),
    (silent, {("freshness", "client.live", WARN)}),
]


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_defect_turns_its_own_check_and_no_other(tmp_path, plant, expected):
    world = healthy(tmp_path)
    plant(world)
    assert turned(world.judge()) == expected


def test_what_lies_on_a_threshold_is_ok(tmp_path):
    world = healthy(tmp_path)
    for second in range(6):  # half as much again
        world.receive("channel.tune", END - HOUR - 1 - second, event_id=f"more-{second}", channel_id="ch-1")
    world.bronze[-8]["event_timestamp"] = END - 5 * MINUTE
    assert world.bronze[-8]["topic"] == "client.live"
    run = world.judge()
    assert turned(run) == set()
    assert of(run, "volume", "client.live").observed == 0.5
    assert of(run, "freshness", "client.live").observed == 300


def test_a_duplicate_counts_within_the_hour_only(tmp_path):
    world = healthy(tmp_path, quality={"max_duplicate_share": 0.5})
    first = world.bronze[-1 - 3 * 20]
    for event_id, minutes in (("near", 60), ("far", 61)):
        world.receive("recommendation.response", first["event_timestamp"], event_id=event_id)
        world.receive("recommendation.response", first["event_timestamp"] + minutes * MINUTE, event_id=event_id)
    found = of(world.judge(), "duplicates", "recommendations.served")
    assert found.observed == 1 / 40
    assert found.detail == "1 of 40 events repeat one of the hour before, 1 an older one"


def test_hours_without_a_week_of_history_and_small_ones_are_not_compared(tmp_path):
    world = healthy(tmp_path)
    for second in range(4):  # under min_volume_events, against none
        world.receive("ad.decision", END - second - 1)
        world.receive("ad.decision", END - second - 1 - 2 * WEEK)
    for second in range(40):  # a topic that is new
        world.receive("route.selected", END - second - 1)
    run = world.judge()
    assert turned(run) == set()
    for topic in ("ad.events", "cdn.routing.events"):
        assert of(run, "volume", topic).detail.startswith("no hour can be compared")


def test_silence_outside_production_hours_is_no_matter(tmp_path):
    world = healthy(tmp_path, quality={"production_hours": (9, 22)})  # END is 8 o'clock
    silent(world)
    run = world.judge()
    assert turned(run) == set()
    assert "outside production hours (9 to 22 h UTC)" in of(run, "freshness", "client.live").detail


def test_a_topic_that_fell_silent_long_ago_is_not_forgotten(tmp_path):
    world = healthy(tmp_path)
    world.receive("ad.decision", END - 3 * WEEK)
    assert turned(world.judge()) == {("freshness", "ad.events", WARN)}


def test_now_is_the_wall_clock(tmp_path):
    world = healthy(tmp_path, quality={"as_of": "now"})
    run = world.judge()
    assert ("freshness", "client.live", WARN) in turned(run)
    assert of(run, "freshness", "client.live").observed > WEEK / 1000


def test_rows_of_people_who_refused_analytics_are_not_looked_at(tmp_path):
    world = healthy(tmp_path)
    for consent in (False, None):
        row = world.receive("playback.started", END - 1, consent_analytics=consent)
        world.clean("silver.playback", row, content_id="vod-unknown", client_timestamp_reliable=False)
    assert turned(world.judge()) == set()


def test_a_live_title_is_a_channel_and_content_of_no_person_counts(tmp_path):
    world = healthy(tmp_path)
    world.titles.append({**world.titles[0], "event_id": "live", "content_id": "ch-2", "content_type": "live"})
    tuned = world.receive("channel.tune", END - 1)
    world.clean("silver.live", tuned, channel_id="ch-2", previous_channel_id="ch-1")
    announced = world.receive("title.updated", END - 1, consent_analytics=None)
    world.clean("silver.playback", announced, content_id="vod-gone", client_timestamp_reliable=None)
    run = world.judge()
    assert turned(run) == {("references", "silver.playback.content_id", WARN)}
    assert of(run, "references", "silver.playback.content_id").detail == (
        "1 of 37 references to 1 unknown ids: vod-gone"
    )


def test_a_batch_that_was_read_again_after_a_crash_breaks_no_promise(tmp_path):
    world = healthy(tmp_path).write()
    # Bronze had all but two of these messages when the run was killed before quarantine's commit.
    bronze = world.lakehouse.existing("bronze.events")
    assert bronze is not None
    with bronze.transaction() as transaction:
        progress = {"cluster_id": "here", "offsets": {t: {"0": n} for t, n in world.offsets.items()} | {"x": {"0": 2}}}
        counts = {"messages": 40, "event playback.started": 39, "dropped analytics_refused": 1}
        summary = {"reel.progress": json.dumps(progress), "reel.counts": json.dumps(counts)}
        transaction.update_snapshot(snapshot_properties=summary).fast_append().commit()
    run = quality(world.settings)
    assert "1 batches were read again after a crash" in of(run, "exactly_once", "bronze.events").detail
    assert of(run, "exactly_once", "bronze.events").status is Status.OK


def test_an_empty_lakehouse_has_nothing_to_judge(tmp_path):
    settings = Settings(work_dir=tmp_path)
    run = quality(settings)
    assert run.findings.results == []
    assert newest_findings(Lakehouse.open(settings)) is None


def test_tables_without_rows_are_judged(tmp_path):
    world = World(tmp_path)
    assert {one.status for one in world.judge().findings.results} <= {Status.OK}


def test_results_are_kept_in_one_commit_that_says_what_they_were_made_of(tmp_path):
    world = healthy(tmp_path)
    wrong_clock(world)
    first = world.judge()
    second = quality(world.settings)
    table = world.lakehouse.existing("quality.checks")
    assert table is not None
    runs = [one.summary for one in table.metadata.snapshots if one.summary and "reel.run-id" in one.summary]
    assert len(runs) == 2
    assert len({one["reel.run-id"] for one in runs if one}) == 2
    bronze = world.lakehouse.existing("bronze.events")
    assert bronze is not None
    assert json.loads(runs[0]["reel.inputs"])["tables"]["bronze.events"] == bronze.metadata.current_snapshot_id
    assert newest_findings(world.lakehouse) == second.findings
    assert first.findings.results == second.findings.results
    assert table.scan().to_arrow().num_rows == 2 * len(first.findings.results)


def test_the_window_of_rejects_is_by_ingestion(tmp_path):
    world = healthy(tmp_path)
    unreadable(world)
    world.quarantine.append({**world.quarantine[0], "offset": 999, "ingested_at": INGESTED - 5 * HOUR})
    found = of(world.judge(), "schema_rejects", "client.playback")
    assert found.detail == "1 of 73 messages set aside"


def test_thresholds_are_settings(tmp_path):
    generous = QualitySettings(max_reject_share=0.5).model_dump(include={"max_reject_share"})
    world = healthy(tmp_path, quality=generous)
    unreadable(world)
    assert turned(world.judge()) == set()


def test_files_of_one_hour_and_topic_are_not_opened(tmp_path, monkeypatch):
    def opened(*_: object) -> None:
        raise AssertionError("a data file was read")

    world = healthy(tmp_path).write()
    platform = Platform.of(world.settings)
    monkeypatch.setattr("pipelines.quality.arrivals.run_tasks", opened)
    assert platform.arrived["rows"].sum() == len(world.bronze)
    assert platform.received == dict(Counter(row["topic"] for row in world.bronze))


def test_a_file_of_several_topics_and_hours_is_read(tmp_path):
    world = World(tmp_path, "month")
    for minutes in (0, 1, 70):
        world.receive("recording.scheduled", END - 1 - minutes * MINUTE, on="client.recording")
    world.receive("recording.scheduled", END - 1, on="recordings.events")
    world.write()
    found = Platform.of(world.settings).arrived.select("topic", "hour_ms", "rows").rows()
    assert found == [
        ("client.recording", END - 2 * HOUR, 1),
        ("client.recording", END - HOUR, 2),
        ("recordings.events", END - HOUR, 1),
    ]


def test_tables_of_an_older_contract_are_judged_by_the_columns_they_have(tmp_path):
    world = World(tmp_path)
    columns = [pa.field("event_id", pa.string()), pa.field("event_name", pa.string())]
    columns += [pa.field("event_timestamp", TIMESTAMP), pa.field("content_id", pa.string())]
    origin = list(tables.ORIGIN)
    bronze = TableSpec("bronze.events", pa.schema([*origin, *columns]), (("event_timestamp", "day"),))
    silver = TableSpec("silver.playback", pa.schema(columns))
    at = datetime.fromtimestamp(END / 1000, UTC)
    row = {"event_id": "a", "event_name": "playback.started", "event_timestamp": at, "content_id": None}
    row |= {"cluster_id": "here", "topic": "client.playback", "partition": 0, "offset": 0, "ingested_at": at}
    for spec in (bronze, silver):
        table = world.lakehouse.table(spec)
        rows = pa.Table.from_pylist([row], schema=spec.schema)
        commit_files(table, write_files(TableFiles.of(table), rows), {})
    assert turned(quality(world.settings)) == {("missing_fields", "playback.started", FAIL)}


def test_what_the_spec_says_is_the_default():
    chosen = QualitySettings()
    assert (chosen.duplicate_window_hours, chosen.max_volume_change, chosen.max_silence_minutes) == (1, 0.5, 5)
