"""Reading on: some partitions from some offsets, whatever comes, for as long as somebody asks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.errors import ReelError
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.log import EventLog, KafkaLog
from pipelines.kafka.message import Headers, Messages
from pipelines.kafka.offsets import LATEST, OffsetRange, Offsets, offsets_at

_LOOK_AGAIN_S = 0.02


class TailBrokenError(ReelError):
    """Kafka does not deliver."""

    passes = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"reading on in Kafka failed: {reason}; the stream goes on from its last checkpoint")


class Tail(Protocol):
    """Some partitions being read; `positions` are the next offsets."""

    positions: Offsets

    def fetch(self, most: int, wait_s: float) -> list[Messages]:
        """What comes within a moment, about `most` messages at most, each partition's in order."""

    def drain(self) -> list[Messages]:
        """Everything that is there by now."""

    def behind(self) -> set[tuple[str, int]]:
        """Partitions that are known to hold more than was read."""

    def close(self) -> None:
        """Let go of the connection."""


def open_tail(log: EventLog, positions: Mapping[str, Mapping[int, int]]) -> Tail:
    """Read some partitions on from the given offsets."""
    following = {topic: dict(partitions) for topic, partitions in positions.items() if partitions}
    if isinstance(log, EmbeddedLog):
        return _EmbeddedTail(log, following)
    assert isinstance(log, KafkaLog), "there are two kinds of logs"
    return _KafkaTail(log, following)


@dataclass
class _EmbeddedTail:
    log: EmbeddedLog
    positions: Offsets

    def fetch(self, most: int, wait_s: float) -> list[Messages]:
        until = time.monotonic() + wait_s
        while True:
            ranges = self._unread()
            left = until - time.monotonic()
            if ranges or left <= 0:
                each = max(1, most // max(1, len(ranges)))
                return self._read([_at_most(span, each) for span in ranges])
            time.sleep(min(left, _LOOK_AGAIN_S))

    def drain(self) -> list[Messages]:
        return self._read(self._unread())

    def behind(self) -> set[tuple[str, int]]:
        return {(span.topic, span.partition) for span in self._unread()}

    def close(self) -> None:
        return

    def _unread(self) -> list[OffsetRange]:
        now = self.log.available(list(self.positions))
        return [
            OffsetRange(topic, partition, first, end)
            for topic, partitions in self.positions.items()
            for partition, first in partitions.items()
            if first < (end := now.bounds[topic][partition][1])
        ]

    def _read(self, ranges: Sequence[OffsetRange]) -> list[Messages]:
        found = list(self.log.read(ranges, 1 << 30)) if ranges else []
        for span in ranges:
            self.positions[span.topic][span.partition] = span.end
        return found


class _KafkaTail:
    def __init__(self, log: KafkaLog, positions: Offsets) -> None:
        self.positions, self._timeout_s = positions, log.timeout_s
        self._errors: list[str] = []
        self._admin = AdminClient(dict(log.configuration))
        self._consumer = Consumer(
            {
                **log.configuration,
                "group.id": "reel-stream",  # never committed to: offsets are in the stream's checkpoint
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": 65_536,
                "error_cb": lambda error: self._errors.append(error.str()),
            }
        )
        self._partitions = [TopicPartition(*where) for where in _flat(positions)]
        if self._partitions:
            self._consumer.assign(self._partitions)

    def fetch(self, most: int, wait_s: float) -> list[Messages]:
        if not self._partitions:
            time.sleep(wait_s)
            return []
        try:
            received = self._consumer.consume(most, timeout=wait_s)
        except KafkaException as error:
            raise TailBrokenError(error.args[0].str()) from None
        by_topic: dict[str, list[Message]] = {}
        for message in received:
            if (refusal := message.error()) is not None:
                raise TailBrokenError(refusal.str())
            by_topic.setdefault(cast(str, message.topic()), []).append(message)
        return [self._gathered(topic, some) for topic, some in by_topic.items()]

    def drain(self) -> list[Messages]:
        found: list[Messages] = []
        ends = self._ends()
        moved = time.monotonic()
        while any(self._position(*where) < end for where, end in ends.items()):
            more = self.fetch(100_000, 0.005)
            found += more
            moved = time.monotonic() if more else moved
            if time.monotonic() - moved > self._timeout_s:
                raise TailBrokenError(self._errors[-1] if self._errors else f"nothing came for {self._timeout_s:g} s")
        return found

    def behind(self) -> set[tuple[str, int]]:
        return {where for where in self._wheres() if self._position(*where) < self._known_end(*where)}

    def close(self) -> None:
        self._consumer.close()

    def _wheres(self) -> list[tuple[str, int]]:
        return [(topic, partition) for topic, partition, _ in _flat(self.positions)]

    def _position(self, topic: str, partition: int) -> int:
        """Past what was delivered, and past markers that never are."""
        (at,) = self._consumer.position([TopicPartition(topic, partition)])
        return max(self.positions[topic][partition], at.offset)

    def _ends(self) -> dict[tuple[str, int], int]:
        """Of all partitions, asked for at once, and not over the connection on which the consumer waits for more: a
        broker answers what comes over one in its order, so that each question would wait for messages first.
        """
        try:
            return offsets_at(self._admin, self._wheres(), LATEST, self._timeout_s)
        except KafkaException as error:
            raise TailBrokenError(error.args[0].str()) from None

    def _known_end(self, topic: str, partition: int) -> int:
        """As the newest messages that came of it said; 0 before any did."""
        bounds = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return max(0, bounds[1]) if bounds is not None else 0

    def _gathered(self, topic: str, some: Sequence[Message]) -> Messages:
        """Of all partitions together: what is done with messages is done once for each topic."""
        partitions = np.fromiter((cast(int, message.partition()) for message in some), np.int32, len(some))
        offsets = np.fromiter((cast(int, message.offset()) for message in some), np.int64, len(some))
        self.positions[topic] |= dict(zip(partitions.tolist(), (offsets + 1).tolist(), strict=True))
        return Messages(
            topic,
            partitions,
            offsets,
            [message.key() for message in some],
            [message.value() for message in some],
            [cast(Headers | None, message.headers()) for message in some],
        )


def _flat(positions: Mapping[str, Mapping[int, int]]) -> list[tuple[str, int, int]]:
    return [(topic, one, offset) for topic, partitions in positions.items() for one, offset in partitions.items()]


def _at_most(span: OffsetRange, most: int) -> OffsetRange:
    return OffsetRange(span.topic, span.partition, span.start, min(span.end, span.start + most))
