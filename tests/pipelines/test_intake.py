"""Exactly once into several tables that commit one after the other, each with its own idea of how far it is."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.intake import Intake, Part, Reading, Rows, _not_yet_consumed
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Available, ClusterChangedError, OffsetRange, OffsetsLostError
from pipelines.lakehouse.catalog import Lakehouse
from pipelines.lakehouse.commits import ConcurrentCommitError, commit_files, progress_of
from pipelines.lakehouse.lineage import Inputs, Run
from pipelines.lakehouse.scans import read_all
from pipelines.lakehouse.tables import TableSpec
from pipelines.settings import Settings

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("text", pa.string()),
    ]
)
GOOD, BAD = TableSpec("test.good", SCHEMA), TableSpec("test.bad", SCHEMA)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    return Lakehouse.open(Settings(work_dir=tmp_path / "work"))


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    made = EmbeddedLog(tmp_path / "log.db")
    made.ensure_topics(["a", "b"], 2)
    return made


def intake(lakehouse: Lakehouse, *specs: TableSpec) -> Intake:
    return Intake({spec.name: lakehouse.table(spec) for spec in specs or (GOOD, BAD)})


def record(lakehouse: Lakehouse, spec: TableSpec, offsets: dict[str, dict[int, int]], cluster_id: str = "c1") -> None:
    commit_files(lakehouse.table(spec), [], {"cluster_id": cluster_id, "offsets": offsets})


def bounds(**topics: dict[int, tuple[int, int]]) -> Available:
    return Available("c1", topics)


def test_new_tables_want_everything(lakehouse):
    now = bounds(a={0: (0, 5), 1: (2, 9)}, b={0: (0, 0)})
    assert intake(lakehouse).plan(now) == [OffsetRange("a", 0, 0, 5), OffsetRange("a", 1, 2, 9)]


def test_the_plan_begins_with_the_table_that_is_behind(lakehouse):
    record(lakehouse, GOOD, {"a": {0: 10, 1: 3}, "b": {0: 7}})
    record(lakehouse, BAD, {"a": {0: 4, 1: 8}, "b": {0: 7}})
    now = bounds(a={0: (0, 12), 1: (0, 8)}, b={0: (0, 7), 1: (0, 2)})
    assert sorted(intake(lakehouse).plan(now), key=str) == [
        OffsetRange("a", 0, 4, 12),  # bad is at 4
        OffsetRange("a", 1, 3, 8),  # good is at 3, and bad has all of it
        OffsetRange("b", 1, 0, 2),  # neither has any
    ]


def test_each_table_is_asked_whether_the_cluster_is_its_own(lakehouse):
    record(lakehouse, GOOD, {"a": {0: 3}})
    record(lakehouse, BAD, {"a": {0: 3}}, cluster_id="another")
    with pytest.raises(ClusterChangedError, match=r"test\.bad was filled from Kafka cluster another, this is c1"):
        intake(lakehouse).plan(bounds(a={0: (0, 5)}))


def test_a_loss_of_the_table_that_is_behind_is_seen(lakehouse):
    record(lakehouse, GOOD, {"a": {0: 9}})
    record(lakehouse, BAD, {"a": {0: 4}})
    now = bounds(a={0: (6, 12)})
    with pytest.raises(OffsetsLostError, match=r"test\.bad had not read: 2 of a\[0\] \(offsets 4 to 5\)"):
        intake(lakehouse).plan(now)
    assert intake(lakehouse).plan(now, accept_lost=True) == [OffsetRange("a", 0, 6, 12)]


@settings(deadline=None)
@given(
    start=st.integers(0, 10),
    size=st.integers(0, 10),
    consumed=st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.integers(0, 1), st.integers(0, 25))),
)
def test_a_table_keeps_only_what_it_has_not_consumed(start, size, consumed):
    wanted = OffsetRange("a", 1, start, start + size)
    rows = table_of(wanted, [f"text {offset}" for offset in range(wanted.start, wanted.end)])
    kept = _not_yet_consumed(rows, wanted.topic, consumed)
    first = consumed.get("a", {}).get(1, 0)
    assert kept["offset"].to_pylist() == [offset for offset in range(wanted.start, wanted.end) if offset >= first]
    assert kept.schema == rows.schema


def table_of(source: OffsetRange, texts: Sequence[str], offsets: Sequence[int] | None = None) -> pa.Table:
    return pa.table(
        {
            "topic": [source.topic] * len(texts),
            "partition": pa.array([source.partition] * len(texts), pa.int32()),
            "offset": pa.array(range(source.start, source.end) if offsets is None else offsets, pa.int64()),
            "text": pa.array(texts, pa.string()),
        },
        schema=SCHEMA,
    )


def sort_out(messages: Messages, wanted: Sequence[str] = (GOOD.name, BAD.name)) -> Rows:
    """Texts that begin with a `!` are bad; those that are empty are dropped."""
    rows = pa.table(
        {
            "topic": [messages.topic] * len(messages),
            "partition": pa.array(messages.partitions),
            "offset": pa.array(messages.offsets),
            "text": [(value or b"").decode() for value in messages.values],
        },
        schema=SCHEMA,
    )
    is_bad = pc.starts_with(rows["text"], "!")
    is_empty = pc.equal(rows["text"], "")
    sorted_out = {GOOD.name: pc.invert(pc.or_(is_bad, is_empty)), BAD.name: is_bad}
    parts = [Part(name, name, rows.filter(mask)) for name, mask in sorted_out.items() if name in wanted]
    return Rows(parts, {"dropped": pc.sum(is_empty).as_py()})


def stored(lakehouse: Lakehouse, spec: TableSpec) -> Counter:
    rows = read_all(lakehouse.table(spec), SCHEMA)
    return Counter((row["topic"], row["partition"], row["offset"], row["text"]) for row in rows.to_pylist())


def logged(log: EmbeddedLog, topics=("a", "b")) -> Counter:
    return Counter(
        (topic, partition, offset, value.decode())
        for topic, partitions in log.available(topics).bounds.items()
        for partition, (start, end) in partitions.items()
        for messages in log.read([OffsetRange(topic, partition, start, end)], 100)
        for offset, value in zip(messages.offsets.tolist(), messages.values, strict=True)
    )


def append(log: EmbeddedLog, topic: str, numbers: range) -> None:
    """Of four messages one is bad and one is to be dropped."""
    texts = [(f"good {number}", f"!bad {number}", "", f"fine {number}")[number % 4] for number in numbers]
    log.append(topic, [str(number).encode() for number in numbers], [text.encode() for text in texts], [0] * len(texts))


def run(taking: Intake, log: EmbeddedLog, per_commit=20, per_task=7, topics=("a", "b")) -> dict[str, int]:
    now = log.available(topics)
    seen: list[int] = []
    transform = partial(sort_out, wanted=tuple(taking.tables))
    reading = Reading(log, per_task, per_commit)
    totals = taking.run(now, taking.plan(now), transform, reading, seen.append, Run.begin("intake"))
    assert sum(seen) == totals.get("messages", 0)
    return totals


def check_exactly_once(lakehouse: Lakehouse, log: EmbeddedLog) -> None:
    texts = logged(log)
    assert stored(lakehouse, BAD) == Counter(one for one in texts if one[3].startswith("!"))
    assert stored(lakehouse, GOOD) == Counter(one for one in texts if one[3] and not one[3].startswith("!"))


@pytest.mark.usefixtures("ray_session")
def test_every_message_lands_in_its_table_once_over_many_runs(lakehouse, log):
    counts = Counter()
    for turn in range(3):
        append(log, "a", range(turn * 50, turn * 50 + 50))
        append(log, "b", range(turn * 10, turn * 10 + 10))
        counts += Counter(run(intake(lakehouse), log))
        check_exactly_once(lakehouse, log)
    assert counts["messages"] == 180
    assert counts["dropped"] == sum(number % 4 == 2 for number in [*range(150), *range(30)])
    assert counts["wrote test.bad"] == sum(stored(lakehouse, BAD).values())
    assert run(intake(lakehouse), log) == {}


@pytest.mark.usefixtures("ray_session")
def test_after_a_crash_between_the_two_commits_of_a_batch_nothing_is_lost_or_doubled(lakehouse, log):
    append(log, "a", range(60))
    run(intake(lakehouse, GOOD), log)  # the second table's commit never came
    append(log, "a", range(60, 90))
    append(log, "b", range(25))
    counts = run(intake(lakehouse), log)
    assert counts["messages"] == 90 + 25
    check_exactly_once(lakehouse, log)
    assert progress_of(lakehouse.table(GOOD)) == progress_of(lakehouse.table(BAD))
    for spec in (GOOD, BAD):  # a commit's counts are of what it advanced by, although some of it was read twice
        commits = [snapshot.summary.additional_properties for snapshot in lakehouse.table(spec).snapshots()]
        assert sum(json.loads(commit["reel.counts"])["messages"] for commit in commits) == 90 + 25


@pytest.mark.usefixtures("ray_session")
def test_a_batch_without_a_row_for_a_table_advances_it_all_the_same(lakehouse, log):
    log.append("a", [b"k"] * 5, [b""] * 5, [0] * 5)
    assert run(intake(lakehouse), log)["dropped"] == 5
    now = log.available(["a", "b"])
    for spec in (GOOD, BAD):
        assert sum(progress_of(lakehouse.table(spec))["offsets"]["a"].values()) == 5
    assert intake(lakehouse).plan(now) == []


@pytest.mark.usefixtures("ray_session")
def test_of_two_runs_at_once_the_second_fails_and_the_next_finds_nothing_missing(lakehouse, log):
    append(log, "a", range(40))
    slower, faster = intake(lakehouse), intake(lakehouse)
    run(faster, log)
    with pytest.raises(ConcurrentCommitError, match="another run committed"):
        run(slower, log)
    check_exactly_once(lakehouse, log)
    append(log, "b", range(40))
    run(intake(lakehouse), log)
    check_exactly_once(lakehouse, log)


@pytest.mark.usefixtures("ray_session")
def test_every_commit_says_which_cluster_how_far_and_when(lakehouse, log):
    append(log, "a", range(30))
    run(intake(lakehouse), log, per_commit=10)
    now = log.available(["a"])
    table = lakehouse.table(GOOD)
    assert progress_of(table) == {
        "cluster_id": now.cluster_id,
        "offsets": {"a": {str(partition): end for partition, (_, end) in now.bounds["a"].items() if end}},
    }
    commits = [snapshot.summary.additional_properties for snapshot in table.snapshots()]
    assert len(commits) >= 3
    read = [Inputs.from_json(commit["reel.inputs"]) for commit in commits]
    assert {one.cluster_id for one in read} == {now.cluster_id}
    for partition, (start, end) in now.bounds["a"].items():
        spans = sorted(span for one in read for span in one.offsets["a"].get(partition, ()))
        assert [(before, after) for (_, before), (after, _) in pairwise(spans) if before != after] == []
        assert (spans[0][0], spans[-1][1]) == (start, end)
    assert {(commit["reel.station"], commit["reel.run-id"]) for commit in commits} == {
        ("intake", commits[0]["reel.run-id"])
    }
