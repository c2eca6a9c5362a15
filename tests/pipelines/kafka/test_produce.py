"""The producer against a real Kafka: what arrives, in which order, and what it says when nothing can."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.contract.codec import decode, split_wire_format, wire_format
from pipelines.contract.events import Contract, load_contract
from pipelines.contract.registry import FileRegistry
from pipelines.errors import ContractError, DeliveryFailed, EncodeError
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.offsets import BrokerUnreachableError, OffsetRange, UnknownTopicError
from pipelines.kafka.produce import Producer, ensure_topics
from pipelines.kafka.write import KafkaWriter
from tests.pipelines.event_rows import Row, example_row, rows_of, table_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(ROOT / "configs" / "schemas")


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry.db")


def watch_rows(contract: Contract, count: int) -> list[Row]:
    """Heartbeats of a few viewers, in order of time."""
    event = contract.event("playback.heartbeat")
    return [{**example_row(event, index), "profile_id": f"prf_{index % 7}"} for index in range(count)]


def read_all(bootstrap: str, topic: str, start: dict[int, int] | None = None) -> list[Message]:
    """Every message of the topic from `start` to its end, by partition and offset."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, (start or {}).get(number, 0)) for number in partitions])
    messages, ended = [], 0
    while ended < len(partitions):
        for message in consumer.consume(10_000, timeout=0.2):
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF
                ended += 1
            else:
                messages.append(message)
    consumer.close()
    return sorted(messages, key=lambda message: (message.partition(), message.offset()))


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    found = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
    consumer.close()
    return found


@pytest.mark.kafka
def test_events_arrive_once_in_order_and_readable(
    kafka_bootstrap: str, contract: Contract, registry: FileRegistry
) -> None:
    event = contract.event("playback.heartbeat")
    ensure_topics(kafka_bootstrap, contract.topics, 3)
    start = ends(kafka_bootstrap, event.topic)
    rows = watch_rows(contract, 40_000)
    with Producer(kafka_bootstrap, contract, registry) as producer:
        producer.produce(event.name, table_of(event, rows))
    messages = read_all(kafka_bootstrap, event.topic, start)
    ids, bodies, bad = split_wire_format([message.value() for message in messages])
    assert (set(ids.tolist()), bad) == ({registry.register(event.subject, event.avro_json)}, [])
    decoded = decode(event.avro, bodies, event)
    assert decoded.bad == []
    received = rows_of(decoded.table)
    assert sorted(received, key=lambda row: row["position_ms"]) == rows
    for message, row in zip(messages, received, strict=True):
        assert message.key() == row["profile_id"].encode()
        assert message.timestamp()[1] == row["event_timestamp"]
    for profile in {row["profile_id"] for row in rows}:
        of_viewer = [(m.partition(), r) for m, r in zip(messages, received, strict=True) if r["profile_id"] == profile]
        assert len({partition for partition, _ in of_viewer}) == 1
        assert [r for _, r in of_viewer] == [r for r in rows if r["profile_id"] == profile]


@pytest.mark.kafka
def test_keys_fall_back_to_the_user_then_the_title_then_none(
    kafka_bootstrap: str, contract: Contract, registry: FileRegistry, make_topic: Callable[..., str]
) -> None:
    ensure_topics(kafka_bootstrap, contract.topics, 3)
    topic = contract.event("playback.paused").topic
    start = ends(kafka_bootstrap, topic)
    event = contract.event("playback.paused")
    row = example_row(event, 1)
    rows = [row, {**row, "profile_id": None}, {**row, "profile_id": None, "user_id": None}]
    with Producer(kafka_bootstrap, contract, registry) as producer:
        producer.produce(event.name, table_of(event, rows))
    keys = {message.key() for message in read_all(kafka_bootstrap, topic, start)}
    assert keys == {value.encode() for value in (row["profile_id"], row["user_id"], row["content_id"])}


@pytest.mark.kafka
def test_raw_bytes_arrive_as_they_are(
    kafka_bootstrap: str, contract: Contract, registry: FileRegistry, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    with Producer(kafka_bootstrap, contract, registry) as producer:
        producer.produce_bytes(topic, b"k", b"\xffrubbish", 875_000_000_000)
        producer.produce_bytes(topic, None, None)
        damaged = wire_format(producer.schema_id(contract.event("user.deleted")), [b"\x99"])[0]
        producer.produce_bytes(topic, None, damaged)
    messages = read_all(kafka_bootstrap, topic)
    assert [(m.key(), m.value()) for m in messages] == [(b"k", b"\xffrubbish"), (None, None), (None, damaged)]
    assert messages[0].timestamp()[1] == 875_000_000_000
    assert abs(messages[1].timestamp()[1] - time.time() * 1000) < 60_000


@pytest.mark.kafka
def test_a_full_queue_makes_the_caller_wait(kafka_bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    count = 5_000
    writer = KafkaWriter({"bootstrap.servers": kafka_bootstrap, "queue.buffering.max.messages": 50}, 10.0)
    writer.append(topic, [b"k"] * count, [str(number).encode() for number in range(count)], [1_000] * count)
    writer.flush()
    writer.close()
    assert [int(message.value() or b"") for message in read_all(kafka_bootstrap, topic)] == list(range(count))


@pytest.mark.kafka
def test_a_message_that_kafka_refuses_is_reported(
    kafka_bootstrap: str, contract: Contract, registry: FileRegistry, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    in_a_year_ms = time.time_ns() // 1_000_000 + 365 * 86_400_000
    producer = Producer(kafka_bootstrap, contract, registry)
    producer.produce_bytes(topic, None, b"from the future", in_a_year_ms)
    with pytest.raises(DeliveryFailed, match=r"did not confirm 1 messages \(.*[Tt]imestamp"):
        producer.flush()
    producer.close()


@pytest.mark.kafka
def test_what_cannot_be_produced_is_named(kafka_bootstrap: str, contract: Contract, registry: FileRegistry) -> None:
    with Producer(kafka_bootstrap, contract, registry) as producer:
        with pytest.raises(UnknownTopicError, match=r"no topic 'nobody\.made\.me'"):
            producer.produce_bytes("nobody.made.me", None, b"x")
        with pytest.raises(ContractError, match=r"no event 'playback\.begun'"):
            producer.produce("playback.begun", pa.table({}))
        with pytest.raises(EncodeError, match="needs the column event_id"):
            producer.produce("user.deleted", pa.table({"user_id": ["u"]}))


@pytest.mark.kafka
def test_topics_are_made_once_with_their_partitions(kafka_bootstrap: str, make_topic: Callable[..., str]) -> None:
    there = make_topic(partitions=1)
    new = f"{there}.new"
    assert ensure_topics(kafka_bootstrap, [there, new], 5) == [new]
    assert ensure_topics(kafka_bootstrap, [there, new], 9) == []
    topics = AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=10).topics
    assert (len(topics[there].partitions), len(topics[new].partitions)) == (1, 5)


def test_an_unreachable_broker_is_one_clear_line(
    free_port: int, contract: Contract, registry: FileRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port}"
    for attempt in (
        lambda: Producer(address, contract, registry, timeout_s=1.0),
        lambda: ensure_topics(address, ["a"], 1, timeout_s=1.0),
    ):
        started = time.monotonic()
        with pytest.raises(BrokerUnreachableError, match=f"no Kafka broker answered at {address} within 1 s"):
            attempt()
        assert time.monotonic() - started < 30
    assert capfd.readouterr() == ("", "")


@pytest.mark.kafka
def test_a_broker_that_dies_is_reported_and_not_waited_for(tmp_path: Path, kafka_libs: Path) -> None:
    from pipelines.kafka.broker import LocalBroker
    from tests.conftest import start_or_skip

    broker = LocalBroker(tmp_path / "kafka", libs=kafka_libs)
    address = start_or_skip(broker).bootstrap
    try:
        ensure_topics(address, ["t"], 1)
        writer = KafkaWriter({"bootstrap.servers": address}, 3.0)
        writer.append("t", [None], [b"confirmed"], [1_000])
        writer.flush()
    finally:
        broker.stop()
    writer.append("t", [None] * 10, [b"lost"] * 10, [1_000] * 10)
    started = time.monotonic()
    with pytest.raises(BrokerUnreachableError, match="10 messages are unconfirmed"):
        writer.flush()
    assert time.monotonic() - started < 60
    writer.close()


def test_the_embedded_log_takes_the_same_events(tmp_path: Path, contract: Contract, registry: FileRegistry) -> None:
    address = f"embedded:{tmp_path / 'log.db'}"
    event = contract.event("playback.heartbeat")
    ensure_topics(address, contract.topics, 2)
    rows = watch_rows(contract, 500)
    with Producer(address, contract, registry) as producer:
        producer.produce(event.name, table_of(event, rows))
        producer.produce_bytes(event.topic, b"k", b"rubbish", 5)
    log = EmbeddedLog.of(address)
    assert log is not None
    bounds = log.available([event.topic]).bounds[event.topic]
    values = [
        value
        for partition, (start, end) in bounds.items()
        for batch in log.read([OffsetRange(event.topic, partition, start, end)], 100)
        for value in batch.values
    ]
    _, bodies, bad = split_wire_format(values)
    assert len(bad) == 1
    decoded = decode(event.avro, [body for body in bodies if body], event)
    assert sorted(rows_of(decoded.table), key=lambda row: row["position_ms"]) == rows


def test_importing_the_producer_does_nothing() -> None:
    script = "import threading, pipelines.kafka.produce; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
