"""Reading on in a real Kafka: all that is there, of all partitions, also where there is nothing to deliver."""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from pipelines.kafka.log import KafkaLog
from pipelines.kafka.offsets import client_configuration
from pipelines.settings import Settings
from pipelines.stream.tails import Tail, TailBrokenError, open_tail

PARTITIONS = 3
TIMEOUT_S = 10.0


def log_of(bootstrap: str, timeout_s: float = TIMEOUT_S) -> KafkaLog:
    return KafkaLog(client_configuration(Settings(), bootstrap), timeout_s, timeout_s)


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    return make_topic(partitions=PARTITIONS)


@pytest.fixture
def tail(kafka_bootstrap: str, topic: str) -> Iterator[Tail]:
    opened = open_tail(log_of(kafka_bootstrap), {topic: dict.fromkeys(range(PARTITIONS), 0)})
    yield opened
    opened.close()


def produce(bootstrap: str, topic: str, values: dict[int, list[str]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition, some in values.items():
        for value in some:
            producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def by_partition(found) -> dict[int, list[tuple[int, str]]]:
    values: dict[int, list[tuple[int, str]]] = {}
    for messages in found:
        for partition, offset, value in zip(
            messages.partitions.tolist(), messages.offsets.tolist(), messages.values, strict=True
        ):
            values.setdefault(partition, []).append((offset, value.decode()))
    return values


@pytest.mark.kafka
def test_all_that_is_there_comes_once_and_in_the_order_of_its_partition(kafka_bootstrap, topic, tail):
    sent = {0: [f"a{n}" for n in range(40)], 2: ["c0"]}
    produce(kafka_bootstrap, topic, sent)
    found = tail.drain()
    assert by_partition(found) == {one: list(enumerate(values)) for one, values in sent.items()}
    assert tail.positions == {topic: {0: 40, 1: 0, 2: 1}}
    assert tail.drain() == []
    produce(kafka_bootstrap, topic, {1: ["b0"], 2: ["c1"]})
    assert by_partition(tail.drain()) == {1: [(0, "b0")], 2: [(1, "c1")]}
    assert tail.positions == {topic: {0: 40, 1: 1, 2: 2}}


@pytest.mark.kafka
def test_messages_of_a_topic_come_together_whatever_their_partition(kafka_bootstrap, topic, tail):
    produce(kafka_bootstrap, topic, {one: [f"{one}-{n}" for n in range(5)] for one in range(PARTITIONS)})
    time.sleep(0.5)  # fetched in the background by now
    tail.fetch(1, 2)
    (messages,) = tail.fetch(100, 2)
    assert messages.topic == topic
    assert len(messages) == PARTITIONS * 5 - 1
    assert tail.positions == {topic: dict.fromkeys(range(PARTITIONS), 5)}


@pytest.mark.kafka
def test_what_was_taken_back_is_passed_over_and_what_is_open_is_not_waited_for(kafka_bootstrap, topic, tail):
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for value, ends in (("never", producer.abort_transaction), ("told", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value, partition=1)
        assert producer.flush(30) == 0
        ends(30)
    producer.begin_transaction()
    producer.produce(topic, "later", partition=1)
    assert producer.flush(30) == 0
    began = time.monotonic()
    assert [value for _, value in by_partition(tail.drain())[1]] == ["told"]
    assert tail.drain() == []
    assert time.monotonic() - began < TIMEOUT_S, "nothing was waited for that does not come"
    producer.commit_transaction(30)
    began = time.monotonic()
    later = []
    while not later and time.monotonic() - began < TIMEOUT_S:  # the broker ends it a moment after it says so
        later = tail.drain()
    assert [value for _, value in by_partition(later)[1]] == ["later"]


@pytest.mark.kafka
def test_it_is_known_where_more_is_than_was_read(kafka_bootstrap, topic, tail):
    assert tail.behind() == set()
    produce(kafka_bootstrap, topic, {1: ["b0", "b1", "b2"]})
    assert len(tail.fetch(1, 10)[0]) == 1
    assert tail.behind() == {(topic, 1)}
    tail.drain()
    assert tail.behind() == set()


def test_a_broker_that_is_away_is_told_of_in_one_line(free_port):
    tail = open_tail(log_of(f"127.0.0.1:{free_port}", timeout_s=1), {"client.playback": {0: 0}})
    with pytest.raises(TailBrokenError, match=r"reading on in Kafka failed: .*last checkpoint"):
        tail.drain()
    tail.close()


@pytest.mark.kafka
def test_who_has_no_partition_reads_nothing(kafka_bootstrap):
    tail = open_tail(log_of(kafka_bootstrap), {})
    assert tail.drain() == []
    assert tail.fetch(10, 0.01) == []
    assert tail.behind() == set()
    tail.close()
