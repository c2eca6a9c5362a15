"""The embedded log: offsets as Kafka gives them, whoever writes, and however many at once."""

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.kafka.embedded import EmbeddedLog, EmbeddedLogError
from pipelines.kafka.offsets import OffsetRange, UnknownTopicError


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    return EmbeddedLog(tmp_path / "log.db")


def read(log, topic, partition, start, end, batch=1000):
    return [
        one
        for messages in log.read([OffsetRange(topic, partition, start, end)], batch)
        for one in zip(messages.offsets.tolist(), messages.keys, messages.values, strict=True)
    ]


def read_all(log, topic):
    """Every message of every partition, as [(offset, key, value)] by partition."""
    bounds = log.available([topic]).bounds[topic]
    return {partition: read(log, topic, partition, *ends) for partition, ends in bounds.items()}


def append_many(path: Path, writer: int) -> None:
    """What one process does: opens the log itself, and appends 40 times 25 messages, a few keys in turn."""
    log = EmbeddedLog(path)
    log.ensure_topics(["t"], 3)
    for turn in range(40):
        numbers = range(turn * 25, (turn + 1) * 25)
        keys = [f"{writer}-{number % 7}".encode() for number in numbers]
        log.append("t", keys, [f"{writer}:{number}".encode() for number in numbers], [0] * 25)


def test_processes_that_write_at_once_give_no_offset_twice(tmp_path: Path):
    writers, path = 3, tmp_path / "log.db"
    with ProcessPoolExecutor(writers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(append_many, path), range(writers)))
    partitions = read_all(EmbeddedLog(path), "t")
    assert len(partitions) == 3
    values = [value for messages in partitions.values() for _, _, value in messages]
    assert sorted(values) == sorted(
        f"{writer}:{number}".encode() for writer in range(writers) for number in range(1000)
    )
    for messages in partitions.values():
        assert [offset for offset, _, _ in messages] == list(range(len(messages)))
        by_key: dict[bytes, list[int]] = {}
        for _, key, value in messages:
            by_key.setdefault(key, []).append(int(value.split(b":")[1]))
        assert all(numbers == sorted(numbers) for numbers in by_key.values())


def cluster_id(path: Path, _: int) -> str:
    return EmbeddedLog(path).available([]).cluster_id


def test_processes_that_open_a_new_log_at_once_agree_whose_it_is(tmp_path: Path):
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(4)))  # all of them are up
        for attempt in range(10):
            path = tmp_path / f"{attempt}.db"
            assert len(set(pool.map(partial(cluster_id, path), range(4)))) == 1


def test_two_logs_are_two_clusters(tmp_path: Path):
    one, other = EmbeddedLog(tmp_path / "one.db"), EmbeddedLog(tmp_path / "other.db")
    assert one.available([]).cluster_id != other.available([]).cluster_id
    assert EmbeddedLog(tmp_path / "one.db").available([]).cluster_id == one.available([]).cluster_id


messages = st.lists(st.tuples(st.none() | st.binary(max_size=2), st.none() | st.binary(max_size=3)), max_size=8)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(messages, max_size=5), partitions=st.integers(1, 4), cut=st.integers(0, 40), size=st.integers(1, 9)
)
def test_what_was_appended_is_read_once_and_in_order(tmp_path_factory, batches, partitions, cut, size):
    log = EmbeddedLog(tmp_path_factory.mktemp("log") / "log.db")
    log.ensure_topics(["t", "other"], partitions)
    for batch in batches:
        log.append("t", [key for key, _ in batch], [value for _, value in batch], [0] * len(batch))
    appended = [message for batch in batches for message in batch]

    found = read_all(log, "t")
    assert {*found} == {*range(partitions)}
    assert sum(map(len, found.values())) == len(appended)
    for partition, one in found.items():
        assert [offset for offset, _, _ in one] == list(range(len(one)))
        keys = {key or b"" for _, key, _ in one}
        # All messages of a key, and no others, are in its partition, in the order in which they were appended.
        assert [(key, value) for _, key, value in one] == [pair for pair in appended if (pair[0] or b"") in keys]
        end = len(one)
        middle = min(cut, end)
        assert read(log, "t", partition, 0, middle, size) + read(log, "t", partition, middle, end, size) == one
    assert read_all(log, "other") == {partition: [] for partition in range(partitions)}


def test_batches_are_no_longer_than_asked_for(log):
    log.ensure_topics(["t"], 1)
    log.append("t", [None] * 10, [b"x"] * 10, range(10))
    assert [len(batch) for batch in log.read([OffsetRange("t", 0, 1, 9)], 3)] == [3, 3, 2]


def test_a_batch_that_fails_leaves_nothing(log):
    log.ensure_topics(["t"], 1)
    with pytest.raises(ValueError, match="shorter"):
        log.append("t", [b"k", b"k"], [b"1", b"2"], [0])
    assert log.available(["t"]).bounds == {"t": {0: (0, 0)}}


def test_making_a_topic_again_changes_nothing(log):
    log.ensure_topics(["t"], 2)
    log.append("t", [b"k"], [b"v"], [0])
    before = log.available(["t"])
    log.ensure_topics(["t"], 5)
    assert log.available(["t"]) == before


def test_a_topic_that_is_not_there(log):
    log.ensure_topics(["client.playback"], 1)
    for ask in (lambda: log.available(["t"]), lambda: log.append("t", [None], [b"v"], [0])):
        with pytest.raises(UnknownTopicError, match=r"no topic 't'; it has: client\.playback"):
            ask()


def test_which_addresses_are_of_an_embedded_log(tmp_path: Path):
    assert EmbeddedLog.of("localhost:9092") is None
    made = EmbeddedLog.of(f"embedded:{tmp_path}/a folder/log.db")
    assert made is not None
    assert made.path == tmp_path / "a folder" / "log.db"


def test_a_file_that_cannot_be_a_log(tmp_path: Path):
    rubbish = tmp_path / "notes.txt"
    rubbish.write_text("not a database, and longer than the header of one. " * 20)
    for path in (rubbish, tmp_path, rubbish / "log.db"):
        said = rf"the embedded event log {path} cannot be used .*bootstrap_servers"
        with pytest.raises(EmbeddedLogError, match=said):
            EmbeddedLog(path)
    assert rubbish.read_text().startswith("not a database")


def test_headers_come_back_in_their_order_and_an_older_log_has_none(log, tmp_path):
    log.ensure_topics(["t"], 1)
    sent = [[("trace_id", b"7f"), ("again", b"1"), ("again", None)], None, []]
    log.append("t", [None] * 3, [b"a", b"b", b"c"], [0] * 3, sent)
    (messages,) = log.read([OffsetRange("t", 0, 0, 3)], 10)
    assert messages.headers == sent
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("ALTER TABLE message DROP COLUMN headers")
    (messages,) = EmbeddedLog(tmp_path / "log.db").read([OffsetRange("t", 0, 0, 3)], 10)
    assert messages.headers == [None, None, None]
