"""Reading a range of a real Kafka to its very end, where there is nothing that would ever be delivered too."""

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.kafka.log import KafkaLog
from pipelines.kafka.offsets import OffsetRange, available, client_configuration
from pipelines.kafka.read import ReadStalledError, read_ranges
from pipelines.settings import Settings

STALL_S = 20.0  # far more than a test may take, so that a reader that waits for what never comes fails it


@pytest.fixture
def configuration(kafka_bootstrap: str) -> dict[str, str | int | float | bool]:
    return client_configuration(Settings(), kafka_bootstrap)


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    return make_topic()


@pytest.fixture
def transactions(kafka_bootstrap: str, topic: str) -> Iterator[Callable[..., None]]:
    """Writes values to the topic in one transaction, which it commits, aborts or leaves open."""
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": topic})
    producer.init_transactions(30)

    def write(values: Sequence[str], *, end: str) -> None:
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value)
        assert producer.flush(30) == 0
        if end == "commit":
            producer.commit_transaction(30)
        elif end == "abort":
            producer.abort_transaction(30)

    yield write
    producer.purge()


def ends(configuration, topic):
    ((_, latest),) = available(configuration, [topic], 10).bounds[topic].values()
    return latest


def read(configuration, topic, start, end, batch=3, stall_s=STALL_S):
    found = [
        (offset, value.decode())
        for messages in read_ranges(configuration, [OffsetRange(topic, 0, start, end)], batch, stall_s)
        for offset, value in zip(messages.offsets.tolist(), messages.values, strict=True)
    ]
    assert [offset for offset, _ in found] == sorted({offset for offset, _ in found})
    return [value for _, value in found]


def produce(bootstrap, topic, values):
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


@pytest.mark.kafka
def test_any_part_of_a_partition(configuration, kafka_bootstrap, topic):
    values = [f"m{number}" for number in range(10)]
    produce(kafka_bootstrap, topic, values)
    for start in range(0, 11, 2):
        for end in range(start, 11, 3):
            assert read(configuration, topic, start, end) == values[start:end]


@pytest.mark.kafka
def test_batches_are_no_longer_than_asked_for(configuration, kafka_bootstrap, topic):
    produce(kafka_bootstrap, topic, [str(number) for number in range(20)])
    lengths = [len(batch) for batch in read_ranges(configuration, [OffsetRange(topic, 0, 0, 20)], 7, STALL_S)]
    assert sum(lengths) == 20
    assert max(lengths) <= 7
    assert min(lengths) > 0


@pytest.mark.kafka
@pytest.mark.parametrize("last", ["commit", "abort"])
def test_a_range_that_ends_in_a_transactions_marker(configuration, topic, transactions, last):
    transactions(["a", "b"], end="commit")  # offsets 0, 1 and the marker 2
    transactions(["c"], end="abort")  # 3 and 4
    transactions(["d", "e"], end=last)  # 5, 6 and 7
    assert ends(configuration, topic) == 8
    committed = ["a", "b", *(["d", "e"] if last == "commit" else [])]
    assert read(configuration, topic, 0, 8) == committed
    # Every way of cutting the range in two delivers the same, whatever the cut falls on.
    for cut in range(9):
        assert read(configuration, topic, 0, cut) + read(configuration, topic, cut, 8) == committed


@pytest.mark.kafka
def test_a_range_without_a_message(configuration, topic, transactions):
    transactions(["gone", "too"], end="abort")
    assert ends(configuration, topic) == 3
    assert read(configuration, topic, 0, 3) == []
    assert read(configuration, topic, 3, 3) == []


@pytest.mark.kafka
def test_messages_that_retention_deleted_are_no_silent_gap(configuration, kafka_bootstrap, topic):
    produce(kafka_bootstrap, topic, [str(number) for number in range(6)])
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    (deleted,) = admin.delete_records([TopicPartition(topic, 0, 4)]).values()
    deleted.result(30)
    assert read(configuration, topic, 4, 6) == ["4", "5"]
    # Planned before they were deleted, read after: to go on without them was not asked for.
    with pytest.raises(ReadStalledError, match=rf"reading {topic}\[0\] stopped at offset 1 of 6: .*out of range"):
        read(configuration, topic, 1, 6)


@pytest.mark.kafka
def test_a_transaction_left_open_stalls_and_says_where(configuration, topic, transactions):
    transactions(["a"], end="commit")
    transactions(["b"], end="never")
    started = time.monotonic()
    with pytest.raises(
        ReadStalledError, match=rf"reading {topic}\[0\] stopped at offset 2 of 3: no message arrived for 2 s"
    ):
        read(configuration, topic, 0, 3, stall_s=2.0)
    assert time.monotonic() - started < 60


@pytest.mark.kafka
def test_a_topic_that_is_not_there(configuration):
    with pytest.raises(ReadStalledError, match=r"reading client\.plyback\[0\] stopped at offset 0 of 5: .+"):
        read(configuration, "client.plyback", 0, 5, stall_s=3.0)


def test_no_broker(free_port: int):
    configuration = client_configuration(Settings(), f"127.0.0.1:{free_port}")
    started = time.monotonic()
    with pytest.raises(
        ReadStalledError, match=r"reading t\[0\] stopped at offset 4 of 5: .* 2 s, .*Connection refused"
    ):
        list(KafkaLog(configuration, 10.0, 2.0).read([OffsetRange("t", 0, 4, 5)], 10))
    assert time.monotonic() - started < 60


@pytest.mark.kafka
def test_several_partitions_at_once_each_to_its_own_end_again_and_again(configuration, kafka_bootstrap, make_topic):
    topic, producer = make_topic(partitions=3), Producer({"bootstrap.servers": kafka_bootstrap})
    for number in range(300):
        producer.produce(
            topic, str(number), partition=number % 3, headers=[("trace_id", f"{number:x}"), ("a", b"\xff")]
        )
    assert producer.flush(30) == 0
    for ends in ((100, 40, 0), (1, 100, 100), (33, 7, 99)):  # one client serves all the readings of a process
        spans = [OffsetRange(topic, partition, 0, end) for partition, end in enumerate(ends)]
        found: dict[int, list[tuple[int, bytes, object]]] = {0: [], 1: [], 2: []}
        for messages in read_ranges(configuration, spans, 50, STALL_S):
            columns = (messages.partitions.tolist(), messages.offsets.tolist(), messages.values, messages.headers)
            for partition, offset, value, headers in zip(*columns, strict=True):
                found[partition].append((offset, value, headers))
        for partition, end in enumerate(ends):
            assert found[partition] == [
                (offset, str(number).encode(), [("trace_id", f"{number:x}".encode()), ("a", b"\xff")])
                for offset, number in enumerate(range(partition, 300, 3))
                if offset < end
            ]
