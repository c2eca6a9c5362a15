"""Kafka offsets: what has been committed, what there is now, and the ranges to read between the two.

What a table has consumed is recorded with its own data, so a stale or replaced cluster shows up here, as one clear
line, and never as events silently skipped (apache/iceberg#16360, #17551).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.errors import ReelError, UsageError
from pipelines.settings import Settings

Offsets = dict[str, dict[int, int]]  # topic -> partition -> next offset to read


class BrokerUnreachableError(ReelError):
    """No broker answered."""

    passes = True

    def __init__(self, bootstrap: str, timeout_s: float, reason: object) -> None:
        super().__init__(
            f"no Kafka broker answered at {bootstrap} within {timeout_s:g} s ({reason}); "
            "start one with `make kafka`, or set REEL_KAFKA_BOOTSTRAP_SERVERS"
        )


class UnknownTopicError(UsageError):
    """A topic that was asked for does not exist."""

    def __init__(self, topic: str, known: Sequence[str]) -> None:
        super().__init__(
            f"Kafka has no topic {topic!r}; it has: {', '.join(sorted(known)) or 'none'}; check kafka.topics"
        )


class ClusterChangedError(ReelError):
    """The offsets on record are another cluster's, or from before this one was recreated."""


class OffsetsLostError(ReelError):
    """Kafka deleted messages that had not been read."""


@dataclass(frozen=True)
class Progress:
    """What a table has consumed of a Kafka cluster."""

    cluster_id: str | None
    offsets: Offsets

    @classmethod
    def from_json(cls, recorded: Mapping[str, object]) -> "Progress":
        """From a snapshot's record; {} is a table that has consumed nothing."""
        cluster_id = recorded.get("cluster_id")
        offsets = recorded.get("offsets", {})
        assert isinstance(offsets, Mapping)
        return cls(
            str(cluster_id) if cluster_id is not None else None,
            {topic: {int(p): int(o) for p, o in partitions.items()} for topic, partitions in offsets.items()},
        )

    def to_json(self) -> dict[str, object]:
        """For a snapshot's record."""
        return {"cluster_id": self.cluster_id, "offsets": self.offsets}

    def advanced(self, cluster_id: str, ranges: Sequence["OffsetRange"]) -> "Progress":
        """Progress after `ranges` were read to their ends."""
        offsets = {topic: dict(partitions) for topic, partitions in self.offsets.items()}
        for done in ranges:
            known = offsets.setdefault(done.topic, {})
            known[done.partition] = max(done.end, known.get(done.partition, 0))
        return Progress(cluster_id, offsets)


@dataclass(frozen=True)
class OffsetRange:
    """Offsets [start, end) of one partition."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """How many offsets; control records and compacted-away ones count, so messages may be fewer."""
        return self.end - self.start


@dataclass(frozen=True)
class Available:
    """What a cluster holds: its id and the [earliest, latest) offsets of every partition of some topics."""

    cluster_id: str
    bounds: Mapping[str, Mapping[int, tuple[int, int]]]


def client_configuration(settings: Settings, bootstrap: str) -> dict[str, str | int | float | bool]:
    """librdkafka settings every client of Reel shares."""
    return {
        "bootstrap.servers": bootstrap,
        "socket.timeout.ms": int(settings.kafka.timeout_s * 1000),
        "log_level": 0,  # failures come back as errors; librdkafka's own log would only repeat them
        **settings.kafka.client,
    }


def available(configuration: Mapping[str, Any], topics: Sequence[str], timeout_s: float) -> Available:
    """The cluster's id and the bounds of `topics`.

    Raises BrokerUnreachableError, or UnknownTopicError for a topic that is not there.
    """
    bootstrap = str(configuration["bootstrap.servers"])
    try:
        described = AdminClient(dict(configuration)).list_topics(timeout=timeout_s)
        cluster_id: Any = described.cluster_id  # confluent_kafka's types say None, which it is before a first answer
    except KafkaException as error:
        raise BrokerUnreachableError(bootstrap, timeout_s, error.args[0].str()) from None
    bounds: dict[str, dict[int, tuple[int, int]]] = {}
    consumer = Consumer({**configuration, "group.id": "reel-plan", "enable.auto.commit": False})
    try:
        for topic in topics:
            if topic not in described.topics:
                raise UnknownTopicError(topic, list(described.topics))
            bounds[topic] = {
                partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
                for partition in described.topics[topic].partitions
            }
    except KafkaException as error:
        raise BrokerUnreachableError(bootstrap, timeout_s, error.args[0].str()) from None
    finally:
        consumer.close()
    return Available(cluster_id, bounds)


def plan(table: str, progress: Progress, now: Available, *, accept_lost: bool = False) -> list[OffsetRange]:
    """The ranges `table` has not consumed, per partition.

    Empty ones are left out, except where everything unread was lost: consuming the empty range records that the
    loss was accepted, else every later run would find it again.

    Raises ClusterChangedError when the record cannot be this cluster's, OffsetsLostError when Kafka's retention
    deleted unread messages and `accept_lost` was not given.
    """
    if progress.cluster_id is not None and progress.cluster_id != now.cluster_id:
        raise ClusterChangedError(
            f"{table} was filled from Kafka cluster {progress.cluster_id}, this is {now.cluster_id}; its offsets mean "
            "nothing here. Point kafka.bootstrap_servers at the old cluster, or start a new work_dir for the new one"
        )
    ranges: list[OffsetRange] = []
    lost: list[str] = []
    for topic, partitions in now.bounds.items():
        for partition, (earliest, latest) in partitions.items():
            committed = progress.offsets.get(topic, {}).get(partition, earliest)
            if committed > latest:
                raise ClusterChangedError(
                    f"{table} has consumed {topic}[{partition}] up to offset {committed}, but Kafka ends at {latest}: "
                    "the topic was recreated or cut short. Start a new work_dir, or restore the topic"
                )
            if committed < earliest:
                lost.append(f"{earliest - committed} of {topic}[{partition}] (offsets {committed} to {earliest - 1})")
            if committed < latest:
                ranges.append(OffsetRange(topic, partition, max(committed, earliest), latest))
    if lost and not accept_lost:
        raise OffsetsLostError(
            f"Kafka deleted messages that {table} had not read: {'; '.join(lost)}. "
            "Nothing was read; run again with --accept-lost to go on without them"
        )
    return ranges
