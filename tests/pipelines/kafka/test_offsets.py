"""Offsets: whatever happens between a plan and a commit, every message is read, and none of them twice."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kafka.log import KafkaLog
from pipelines.kafka.offsets import (
    LATEST,
    Available,
    BrokerUnreachableError,
    ClusterChangedError,
    OffsetRange,
    OffsetsLostError,
    Progress,
    UnknownTopicError,
    available,
    client_configuration,
    offsets_at,
    plan,
)
from pipelines.settings import KafkaSettings, Settings
from pipelines.work import batches

NOTHING = Progress(None, {})
TABLE = "bronze.events"


def offsets_of(ranges):
    return Counter((r.topic, r.partition, offset) for r in ranges for offset in range(r.start, r.end))


def holding(bounds):
    """Everything a cluster holds, offset by offset, from bounds by (topic, partition)."""
    return Counter(
        (*place, offset) for place, (earliest, latest) in bounds.items() for offset in range(earliest, latest)
    )


def cluster(bounds, cluster_id="c1"):
    nested = {}
    for (topic, partition), ends in bounds.items():
        nested.setdefault(topic, {})[partition] = ends
    return Available(cluster_id, nested)


def recorded(progress):
    """The progress as the next run finds it: through the JSON of a snapshot's summary."""
    return Progress.from_json(json.loads(json.dumps(progress.to_json(), sort_keys=True)))


places = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2))
bounds_of_a_cluster = st.dictionaries(places, st.tuples(st.integers(0, 5), st.integers(0, 20)).map(sorted).map(tuple))
sizes = st.integers(1, 8)


@settings(deadline=None)
@given(bounds=bounds_of_a_cluster, runs=st.data())
def test_every_offset_is_consumed_once_whatever_happens_between_plan_and_commit(bounds, runs):
    progress, consumed = NOTHING, Counter()
    for _ in range(runs.draw(st.integers(0, 4))):
        todo = batches(plan(TABLE, progress, cluster(bounds)), runs.draw(sizes), runs.draw(sizes))
        # The run dies after any of its commits: what was read without a commit leaves nothing behind.
        for batch in todo[: runs.draw(st.integers(0, len(todo)))]:
            finished = [span for work in runs.draw(st.permutations(batch)) for span in work]
            progress = recorded(progress.advanced("c1", finished))
            consumed += offsets_of(finished)
        for place in runs.draw(st.lists(places, max_size=3)):  # new messages, new partitions, new topics
            earliest, latest = bounds.get(place, (0, 0))
            bounds[place] = earliest, latest + runs.draw(st.integers(0, 5))

    for batch in batches(plan(TABLE, progress, cluster(bounds)), 3, 2):
        spans = [span for work in batch for span in work]
        progress = progress.advanced("c1", spans)
        consumed += offsets_of(spans)
    assert consumed == holding(bounds)
    assert plan(TABLE, recorded(progress), cluster(bounds)) == []


@given(
    offsets=st.dictionaries(
        st.text(max_size=3), st.dictionaries(st.integers(0, 99), st.integers(0, 2**62), min_size=1)
    ),
    cluster_id=st.none() | st.text(max_size=5),
)
def test_progress_survives_its_record(offsets, cluster_id):
    progress = Progress(cluster_id, offsets)
    assert recorded(progress) == progress
    assert Progress.from_json({}) == NOTHING


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_progress_never_goes_back(ends):
    progress = NOTHING
    for end in ends:
        progress = progress.advanced("c1", [OffsetRange("t", 0, 0, end)])
    assert progress == Progress("c1", {"t": {0: max(ends)}})


def test_advancing_leaves_the_old_progress_alone():
    before = Progress("c1", {"t": {0: 3}, "u": {0: 1}})
    after = before.advanced("c1", [OffsetRange("t", 0, 3, 7), OffsetRange("t", 1, 0, 2)])
    assert before == Progress("c1", {"t": {0: 3}, "u": {0: 1}})
    assert after == Progress("c1", {"t": {0: 7, 1: 2}, "u": {0: 1}})


def test_a_first_run_begins_where_kafka_does():
    now = cluster({("t", 0): (5, 9), ("t", 1): (0, 0), ("t", 2): (7, 7)})
    # Nothing is left of partition 2, but where it begins is to be recorded: what came before was never missed.
    assert plan(TABLE, NOTHING, now) == [OffsetRange("t", 0, 5, 9), OffsetRange("t", 2, 7, 7)]


@pytest.mark.parametrize("accept_lost", [False, True])
def test_another_cluster_is_refused(accept_lost):
    with pytest.raises(ClusterChangedError, match=r"bronze\.events was filled from Kafka cluster c1, this is c2"):
        plan(TABLE, Progress("c1", {"t": {0: 5}}), cluster({("t", 0): (0, 9)}, "c2"), accept_lost=accept_lost)


@pytest.mark.parametrize("accept_lost", [False, True])
def test_a_topic_that_was_made_anew_is_refused(accept_lost):
    with pytest.raises(ClusterChangedError, match=r"consumed t\[3\] up to offset 120, but Kafka ends at 40"):
        plan(TABLE, Progress("c1", {"t": {3: 120}}), cluster({("t", 3): (0, 40)}), accept_lost=accept_lost)


def test_lost_messages_stop_the_run_and_say_how_many():
    progress = Progress("c1", {"t": {0: 10, 1: 10, 2: 30}})
    now = cluster({("t", 0): (17, 40), ("t", 1): (10, 40), ("t", 2): (31, 31)})
    with pytest.raises(OffsetsLostError) as lost:
        plan(TABLE, progress, now)
    assert "7 of t[0] (offsets 10 to 16); 1 of t[2] (offsets 30 to 30)" in str(lost.value)
    assert "t[1]" not in str(lost.value)
    assert "--accept-lost" in str(lost.value)


@settings(deadline=None)
@given(
    committed=st.dictionaries(places, st.integers(0, 10)),
    bounds=st.dictionaries(places, st.tuples(st.integers(0, 20), st.integers(10, 25)).map(sorted).map(tuple)),
    per_batch=sizes,
)
def test_accepted_losses_are_accepted_once_and_the_rest_is_read(committed, bounds, per_batch):
    # Whatever is on record is not beyond what Kafka has.
    bounds = {place: (earliest, max(latest, committed.get(place, 0))) for place, (earliest, latest) in bounds.items()}
    progress = Progress("c1", {})
    for (topic, partition), end in committed.items():
        progress = progress.advanced("c1", [OffsetRange(topic, partition, 0, end)])

    consumed = Counter()
    for batch in batches(plan(TABLE, progress, cluster(bounds), accept_lost=True), per_batch, 3):
        spans = [span for work in batch for span in work]
        progress = recorded(progress.advanced("c1", spans))
        consumed += offsets_of(spans)
    assert consumed == holding(
        {place: (max(earliest, committed.get(place, 0)), latest) for place, (earliest, latest) in bounds.items()}
    )
    assert plan(TABLE, progress, cluster(bounds)) == []


def test_a_loss_that_leaves_nothing_to_read_is_recorded():
    progress = Progress("c1", {"t": {0: 3}})
    now = cluster({("t", 0): (8, 8)})
    (((lost,),),) = batches(plan(TABLE, progress, now, accept_lost=True), 100, 10)
    assert lost.size == 0
    assert progress.advanced("c1", [lost]) == Progress("c1", {"t": {0: 8}})


def kafka_log(bootstrap, timeout_s=10.0):
    chosen = Settings(kafka=KafkaSettings(timeout_s=timeout_s))
    return KafkaLog(client_configuration(chosen, bootstrap), timeout_s, 5.0)


def test_an_unreachable_broker_is_said_within_the_timeout(free_port: int):
    started = time.monotonic()
    with pytest.raises(
        BrokerUnreachableError, match=rf"no Kafka broker answered at 127\.0\.0\.1:{free_port} within 2 s"
    ):
        kafka_log(f"127.0.0.1:{free_port}", 2.0).available(["t"])
    assert time.monotonic() - started < 30


@pytest.mark.kafka
def test_what_a_broker_has(kafka_bootstrap: str, make_topic: Callable[..., str]):
    topic, empty = make_topic(partitions=2), make_topic()
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    for number in range(5):
        producer.produce(topic, str(number), partition=1)
    assert producer.flush(30) == 0
    now = kafka_log(kafka_bootstrap).available([topic, empty])
    assert now.bounds == {topic: {0: (0, 0), 1: (0, 5)}, empty: {0: (0, 0)}}
    assert now.cluster_id
    assert kafka_log(kafka_bootstrap).available([]).cluster_id == now.cluster_id
    assert plan(TABLE, NOTHING, now) == [OffsetRange(topic, 1, 0, 5)]


class Starting(AdminClient):
    """The client of a broker that has just started: the first answers are that it does not know what it leads.

    When that happens cannot be chosen with a real one.
    """

    def __init__(self, bootstrap: str, code: int, times: int) -> None:
        super().__init__({"bootstrap.servers": bootstrap})
        self.code, self.left = code, times

    def list_offsets(self, asked, **options):
        if not self.left:
            return super().list_offsets(asked, **options)
        self.left -= 1
        answers = {where: Future() for where in asked}
        for answer in answers.values():
            answer.set_exception(KafkaException(KafkaError(self.code)))
        return answers


@pytest.mark.kafka
@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    ],
)
def test_a_broker_that_has_just_started_is_asked_again(kafka_bootstrap: str, make_topic: Callable[..., str], code: int):
    where = (make_topic(), 0)
    assert offsets_at(Starting(kafka_bootstrap, code, times=3), [where], LATEST, 10) == {where: 0}
    with pytest.raises(KafkaException):
        offsets_at(Starting(kafka_bootstrap, code, times=10_000), [where], LATEST, 0.3)


@pytest.mark.kafka
def test_whoever_may_not_read_a_topic_is_told_at_once(kafka_bootstrap: str, make_topic: Callable[..., str]):
    refused = Starting(kafka_bootstrap, KafkaError.TOPIC_AUTHORIZATION_FAILED, times=1)
    with pytest.raises(KafkaException):
        offsets_at(refused, [(make_topic(), 0)], LATEST, 10)
    assert refused.left == 0


@pytest.mark.kafka
def test_a_topic_that_is_not_there(kafka_bootstrap: str, make_topic: Callable[..., str]):
    known = make_topic()
    with pytest.raises(UnknownTopicError, match=rf"has no topic 'client\.plyback'; it has:.*{re.escape(known)}"):
        kafka_log(kafka_bootstrap).available([known, "client.plyback"])
    # Asking must not have made it.
    with pytest.raises(UnknownTopicError):
        available({"bootstrap.servers": kafka_bootstrap}, ["client.plyback"], 10)


@pytest.mark.kafka
def test_an_open_transaction_is_not_there_yet(kafka_bootstrap: str, make_topic: Callable[..., str]):
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, "one")
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, "two")
    assert producer.flush(30) == 0
    log = kafka_log(kafka_bootstrap)
    (open_range,) = plan(TABLE, NOTHING, log.available([topic]))
    assert (open_range.start, open_range.end) == (0, 2)  # "one" and the marker of its commit
    producer.commit_transaction(30)
    (whole,) = plan(TABLE, NOTHING, log.available([topic]))
    assert whole.end == 4
