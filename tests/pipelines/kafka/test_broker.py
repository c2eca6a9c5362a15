"""The local Kafka broker: what it keeps, what ends it, and what it says when it cannot start."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.errors import BrokerRunsElsewhere, BrokerStartFailed, PortInUse
from pipelines.kafka.broker import LocalBroker, local_bootstrap, main
from pipelines.processes import why_not_free
from tests.conftest import start_or_skip

pytestmark = pytest.mark.kafka

SEPTEMBER_1997_MS = 874_724_710_000  # 1997-09-20T03:05:10Z


@pytest.fixture
def broker(tmp_path: Path, kafka_libs: Path) -> Iterator[LocalBroker]:
    """A broker of the test's own, not started yet."""
    broker = LocalBroker(tmp_path / "kafka", libs=kafka_libs)
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, kafka_libs: Path) -> Iterator[LocalBroker]:
    """A broker that runs, for tests that leave it running."""
    broker = LocalBroker(tmp_path_factory.mktemp("running"), libs=kafka_libs)
    start_or_skip(broker)
    yield broker
    broker.stop()


def produce(bootstrap: str, topic: str, value: bytes, timestamp_ms: int) -> KafkaError | None:
    """Write one message; the error it was refused with."""
    outcomes: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "topic.metadata.propagation.max.ms": 0})
    producer.produce(topic, value, timestamp=timestamp_ms, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(30) == 0
    return outcomes[0]


def read_all(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, int]]:
    """The first `count` messages of partition 0: body, timestamp."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Message] = consumer.consume(count, timeout=30)
    consumer.close()
    assert [message.error() for message in messages] == [None] * count
    return [(message.value(), message.timestamp()[1]) for message in messages]


def command(broker: LocalBroker, name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.kafka.broker", name, "--folder", str(broker.folder), *options]


def link_jars(broker: LocalBroker) -> None:
    """Let the command line, which shares no jars, find them in the broker's own folder."""
    broker.folder.mkdir(parents=True)
    (broker.folder / "libs").symlink_to(broker.libs)


def test_messages_of_1997_outlive_stop_and_kill(broker: LocalBroker, running: LocalBroker) -> None:
    neighbour = running.status()
    address = start_or_skip(broker)
    admin = AdminClient({"bootstrap.servers": address.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("history", 1, 1)])["history"].result(timeout=30)
    assert produce(address.bootstrap, "history", b"first", SEPTEMBER_1997_MS) is None
    assert read_all(address.bootstrap, "history", 1) == [(b"first", SEPTEMBER_1997_MS)]

    assert broker.stop()
    assert why_not_free(address.port) is None
    assert running.status() == neighbour
    second = broker.start()
    assert (second.bootstrap, second.pid == address.pid) == (address.bootstrap, False)
    assert produce(second.bootstrap, "history", b"second", SEPTEMBER_1997_MS + 1) is None

    os.kill(second.pid, signal.SIGKILL)
    third = broker.start()
    assert third.bootstrap == address.bootstrap
    assert third.pid != second.pid
    expected = [(b"first", SEPTEMBER_1997_MS), (b"second", SEPTEMBER_1997_MS + 1)]
    assert read_all(third.bootstrap, "history", 2) == expected


def test_starting_twice_gives_the_same_address(running: LocalBroker) -> None:
    first = running.status()

    assert first is not None
    assert running.start() == first
    assert LocalBroker(running.folder, libs=running.libs).start(port=first.port) == first
    assert local_bootstrap(running.folder) == first.bootstrap == f"127.0.0.1:{first.port}"
    assert running.answers()


def test_a_running_broker_does_not_move(running: LocalBroker, free_port: int) -> None:
    with pytest.raises(BrokerRunsElsewhere, match=rf"not on port {free_port}: stop it first"):
        running.start(port=free_port)


def test_only_this_machine_can_reach_it(running: LocalBroker) -> None:
    address = running.status()
    assert address is not None
    socket.create_connection(("127.0.0.1", address.port)).close()
    # Another address of the same machine: a socket bound to all of them would answer.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", address.port))


def test_a_topic_that_is_not_there_stays_so(running: LocalBroker) -> None:
    bootstrap = local_bootstrap(running.folder)
    assert bootstrap is not None

    refusal = produce(bootstrap, "nobody.made.me", b"x", SEPTEMBER_1997_MS)

    assert refusal is not None
    assert refusal.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert "nobody.made.me" not in AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics


def test_the_command_line_says_where_it_runs(running: LocalBroker, capsys: pytest.CaptureFixture[str]) -> None:
    address = running.status()
    assert address is not None
    runs = f"Kafka runs at {address.bootstrap} (pid {address.pid})\n"
    folder = ["--folder", str(running.folder)]

    assert (main(["status", *folder]), capsys.readouterr().out) == (0, runs)
    assert (main(["start", *folder]), capsys.readouterr().out) == (0, runs)
    assert main(["start", *folder, "--port", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("wrong", [["start", "--port", "0"], ["start", "--port", "x"], ["restart"], []])
def test_wrong_usage_is_exit_code_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2


def test_where_no_broker_is_there_is_nothing_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "never"

    assert local_bootstrap(folder) is None
    assert not LocalBroker(folder).stop()
    assert main(["status", "--folder", str(folder)]) == 1
    assert main(["stop", "--folder", str(folder)]) == 0
    assert not folder.exists()


def test_a_port_in_use_is_named(broker: LocalBroker, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    link_jars(broker)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen()
        with pytest.raises(PortInUse, match=rf"port {free_port} cannot be had \(Address already in use\)"):
            broker.start(port=free_port)
        assert main(["start", "--folder", str(broker.folder), "--port", str(free_port)]) == 1
    assert f"error: port {free_port} cannot be had" in capsys.readouterr().err
    assert broker.status() is None


def test_a_process_id_that_went_to_another_is_not_killed(broker: LocalBroker) -> None:
    broker.folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (broker.folder / "bootstrap").write_text("127.0.0.1:9092\n")
        (broker.folder / "broker.pid").write_text(f"{bystander.pid} 1\n")  # a process of the machine's first tick

        assert broker.status() is None
        assert not broker.stop()
        assert bystander.poll() is None
        bystander.kill()


def test_a_broker_that_dies_at_start_says_why(broker: LocalBroker) -> None:
    start_or_skip(broker)
    broker.stop()
    identity = broker.folder / "data" / "meta.properties"
    identity.write_text(identity.read_text().replace("node.id=1", "node.id=7"))

    with pytest.raises(BrokerStartFailed, match=r"died at start: .*\b7\b.*\(see .*broker\.log\)"):
        broker.start()
    assert broker.status() is None


def test_starters_at_once_share_one_broker_that_outlives_them(broker: LocalBroker, project_root: Path) -> None:
    link_jars(broker)
    starters = [
        subprocess.Popen(command(broker, "start"), cwd=project_root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {starter.communicate(timeout=120)[0] for starter in starters}

    address = broker.status()
    assert address is not None
    assert said == {f"Kafka runs at {address.bootstrap} (pid {address.pid})\n"}
    assert broker.answers()


def test_a_killed_starter_leaves_a_broker_that_is_found(broker: LocalBroker, project_root: Path) -> None:
    link_jars(broker)
    starter = subprocess.Popen(command(broker, "start"), cwd=project_root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while broker.status() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    starter.kill()
    starter.wait()

    launched = broker.status()
    assert launched is not None
    assert broker.start() == launched
    assert broker.answers()


def test_a_broker_that_does_not_answer_is_told_from_one_that_does(
    broker: LocalBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    address = start_or_skip(broker)
    os.kill(address.pid, signal.SIGSTOP)

    with pytest.raises(BrokerStartFailed, match=rf"pid {address.pid}\) does not answer .* after 1 s"):
        broker.start(timeout_s=1)
    assert main(["status", "--folder", str(broker.folder)]) == 1
    assert f"does not answer at {address.bootstrap}" in capsys.readouterr().out

    os.kill(address.pid, signal.SIGCONT)
    assert broker.start() == address
