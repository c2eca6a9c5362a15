"""Reading ranges of offsets to their very ends, whatever lies in them.

A range may end in transaction markers or in offsets that compaction removed; neither is ever delivered as a
message. The reader therefore goes by its position and by the end-of-partition event, not by counting messages.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipelines.errors import ReelError
from pipelines.kafka.message import Headers, Messages
from pipelines.kafka.offsets import OffsetRange

# `consume` waits until it has as many as it was asked for or this long, at the end of a partition too.
POLL_S = 0.05
_LEADERS_TIMEOUT_S = 1


class ReadStalledError(ReelError):
    """Kafka stopped delivering in the middle of a range."""

    passes = True

    def __init__(self, topic: str, partition: int, position: int, end: int, reason: str) -> None:
        super().__init__(
            f"reading {topic}[{partition}] stopped at offset {position} of {end}: {reason}. "
            "Nothing of this batch was committed; run it again when the broker answers"
        )


class _Client:
    """A consumer that is kept: connecting costs more than reading a small range does."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._known: set[str] = set()
        self.errors: list[str] = []  # a broker that cannot be reached is never an error of the reading itself
        self.consumer = Consumer(
            {
                **configuration,
                "group.id": "reel-read",  # never committed to: offsets live in the lakehouse
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                # What is fetched beyond the end of a range is fetched in vain.
                "queued.max.messages.kbytes": 16384,
                "error_cb": lambda error: self.errors.append(error.str()),
            }
        )

    def learn_leaders(self, topic: str) -> None:
        """Ask who leads the topic: librdkafka, told to read what it knows no leader of, waits up to 1 s to ask."""
        if topic in self._known:
            return
        with suppress(KafkaException):  # a broker that is away now may be back before the reading is given up
            self.consumer.list_topics(topic, timeout=_LEADERS_TIMEOUT_S)
            self._known.add(topic)


@cache
def _client(process_id: int, configuration: tuple[tuple[str, Any], ...]) -> _Client:
    return _Client(dict(configuration))


def read_ranges(
    configuration: Mapping[str, Any], wanted: Sequence[OffsetRange], batch: int, stall_s: float
) -> Iterator[Messages]:
    """Messages of `wanted`, ranges of one topic, each partition's in order, up to `batch` at a time.

    Returns only when every position has passed its range's end. Raises ReadStalledError when nothing moved for
    `stall_s`, or when the messages cannot be had: deleted since the range was planned, say.
    """
    client = _client(os.getpid(), tuple(sorted(configuration.items())))
    client.errors.clear()
    reader = _Reader(client, wanted, stall_s)
    gathered: list[Messages] = []
    client.learn_leaders(wanted[0].topic)
    try:
        client.consumer.assign([TopicPartition(span.topic, span.partition, span.start) for span in reader.open])
        while reader.open:
            messages = reader.next(batch - sum(map(len, gathered)))
            if len(messages):
                gathered.append(messages)
            if sum(map(len, gathered)) >= batch:
                yield _joined(gathered)
                gathered = []
    except KafkaException as error:
        raise reader.stalled(error.args[0].str()) from None
    finally:
        reader.leave()
    if gathered:
        yield _joined(gathered)


class _Reader:
    """Where one reading of some ranges is."""

    def __init__(self, client: _Client, wanted: Sequence[OffsetRange], stall_s: float) -> None:
        self._client, self._stall_s = client, stall_s
        self._topic = wanted[0].topic
        assert all(span.topic == self._topic for span in wanted), "one topic a reading"
        self._all = tuple(wanted)
        partitions = max(span.partition for span in wanted) + 1
        self._end = np.zeros(partitions, np.int64)
        self._position = np.zeros(partitions, np.int64)
        for span in wanted:
            self._end[span.partition], self._position[span.partition] = span.end, span.start
        self._moved = time.monotonic()
        self._paused: set[int] = set()

    @property
    def open(self) -> list[OffsetRange]:
        """Ranges that have not been read to their ends."""
        return [span for span in self._all if self._position[span.partition] < span.end]

    def next(self, most: int) -> Messages:
        """What came within a moment: messages inside the ranges."""
        before = self._position.copy()
        received = self._client.consumer.consume(most, timeout=POLL_S)
        good = [message for message in received if message.error() is None]
        count = len(good)
        partitions = np.fromiter((message.partition() for message in good), np.int32, count)
        offsets = np.fromiter((message.offset() for message in good), np.int64, count)
        np.maximum.at(self._position, partitions, offsets + 1)
        if count < len(received):
            self._note([message for message in received if message.error() is not None])
        if (self._position > before).any():
            self._moved = time.monotonic()
            self._pause_finished()
        elif time.monotonic() - self._moved > self._stall_s:
            silence = f"no message arrived for {self._stall_s:g} s"
            raise self.stalled(", ".join([silence, *self._client.errors[-1:]]))
        inside = offsets < self._end[partitions]
        if not inside.all():
            good = [message for message, wanted in zip(good, inside.tolist(), strict=True) if wanted]
            partitions, offsets = partitions[inside], offsets[inside]
        return Messages(
            self._topic,
            partitions,
            offsets,
            [message.key() for message in good],
            [message.value() for message in good],
            # The types tell what a producer may be given; a consumer gets pairs of text and bytes.
            cast(list[Headers | None], [message.headers() for message in good]),
        )

    def leave(self) -> None:
        """Give the client back as it was: a partition that stays paused would stay so for the next reading."""
        if self._paused:
            self._client.consumer.resume([TopicPartition(self._topic, partition) for partition in self._paused])
        self._client.consumer.unassign()

    def stalled(self, reason: str) -> ReadStalledError:
        """The error that says where the reading stands."""
        span = (self.open or self._all)[0]
        return ReadStalledError(span.topic, span.partition, int(self._position[span.partition]), span.end, reason)

    def _note(self, events: Sequence[Message]) -> None:
        for event in events:
            error = event.error()
            partition, offset = event.partition(), event.offset()
            if error is None or error.code() != KafkaError._PARTITION_EOF or partition is None or offset is None:
                raise self.stalled(error.str() if error is not None else "an event that is none")
            # Where the partition ends: past markers that are never delivered.
            self._position[partition] = max(self._position[partition], offset)

    def _pause_finished(self) -> None:
        finished = [
            TopicPartition(span.topic, span.partition)
            for span in self._all
            if self._position[span.partition] >= span.end and span.partition not in self._paused
        ]
        if finished and len(self._all) > 1:
            self._client.consumer.pause(finished)
            self._paused |= {each.partition for each in finished}


def _joined(parts: Sequence[Messages]) -> Messages:
    if len(parts) == 1:
        return parts[0]
    return Messages(
        parts[0].topic,
        np.concatenate([part.partitions for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        [headers for part in parts for headers in part.headers],
    )
