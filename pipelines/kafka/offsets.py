"""Kafka offsets: what has been committed, what there is now, and the ranges to read between the two.

What a table has consumed is recorded with its own data, so a stale or replaced cluster shows up here, as one clear
line, and never as events silently skipped (apache/iceberg#16360, #17551).
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its documented place

from pipelines.errors import ReelError, UsageError
from pipelines.settings import Settings

Offsets = dict[str, dict[int, int]]  # topic -> partition -> next offset to read
NO_IDS: Mapping[str, str] = {}
_LEADS_NOTHING_YET = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
_ASK_AGAIN_S = 0.1
EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]


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
    """What a table has consumed of a Kafka cluster; `topic_ids` tell a topic from another of its name, where known."""

    cluster_id: str | None
    offsets: Offsets
    topic_ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, recorded: Mapping[str, object]) -> "Progress":
        """From a snapshot's record; {} is a table that has consumed nothing."""
        cluster_id = recorded.get("cluster_id")
        offsets, topic_ids = recorded.get("offsets", {}), recorded.get("topic_ids", {})
        assert isinstance(offsets, Mapping)
        assert isinstance(topic_ids, Mapping)
        return cls(
            str(cluster_id) if cluster_id is not None else None,
            {topic: {int(p): int(o) for p, o in partitions.items()} for topic, partitions in offsets.items()},
            dict(topic_ids),
        )

    def to_json(self) -> dict[str, object]:
        """For a snapshot's record."""
        known = {"topic_ids": dict(self.topic_ids)} if self.topic_ids else {}
        return {"cluster_id": self.cluster_id, "offsets": self.offsets, **known}

    def advanced(
        self, cluster_id: str, ranges: Sequence["OffsetRange"], topic_ids: Mapping[str, str] = NO_IDS
    ) -> "Progress":
        """Progress after `ranges` were read to their ends."""
        offsets = {topic: dict(partitions) for topic, partitions in self.offsets.items()}
        for done in ranges:
            known = offsets.setdefault(done.topic, {})
            known[done.partition] = max(done.end, known.get(done.partition, 0))
        read = {done.topic: topic_ids[done.topic] for done in ranges if done.topic in topic_ids}
        return Progress(cluster_id, offsets, {**self.topic_ids, **read})


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
    """What a cluster holds: its id, the [earliest, latest) offsets of every partition of some topics, and their ids."""

    cluster_id: str
    bounds: Mapping[str, Mapping[int, tuple[int, int]]]
    topic_ids: Mapping[str, str] = field(default_factory=dict)

    def with_topics_of(self, other: "Available") -> "Available":
        """What there is of the topics of both."""
        return replace(self, bounds={**self.bounds, **other.bounds}, topic_ids={**self.topic_ids, **other.topic_ids})


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
        admin = AdminClient(dict(configuration))
        described = admin.list_topics(timeout=timeout_s)
        cluster_id: Any = described.cluster_id  # confluent_kafka's types say None, which it is before a first answer
    except KafkaException as error:
        raise BrokerUnreachableError(bootstrap, timeout_s, error.args[0].str()) from None
    for topic in topics:
        if topic not in described.topics:
            raise UnknownTopicError(topic, list(described.topics))
    wheres = [(topic, partition) for topic in topics for partition in described.topics[topic].partitions]
    try:
        first = offsets_at(admin, wheres, EARLIEST, timeout_s)
        end = offsets_at(admin, wheres, LATEST, timeout_s)
        topic_ids = _topic_ids(admin, topics, timeout_s)
    except KafkaException as error:
        raise BrokerUnreachableError(bootstrap, timeout_s, error.args[0].str()) from None
    bounds: dict[str, dict[int, tuple[int, int]]] = {topic: {} for topic in topics}
    for topic, partition in wheres:
        bounds[topic][partition] = first[topic, partition], end[topic, partition]
    return Available(cluster_id, bounds, topic_ids)


def offsets_at(
    admin: AdminClient, wheres: Collection[tuple[str, int]], place: OffsetSpec, timeout_s: float
) -> dict[tuple[str, int], int]:
    """Where some partitions begin (`EARLIEST`) or end (`LATEST`: what a transaction has not committed is not there
    yet), asked for at once, and again while a broker that has just started does not know yet what it leads.

    Raises KafkaException.
    """
    if not wheres:
        return {}
    asked = {TopicPartition(*where): place for where in wheres}
    until_s = time.monotonic() + timeout_s
    while True:
        told = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s)
        try:
            return {(where.topic, where.partition): answer.result().offset for where, answer in told.items()}
        except KafkaException as error:
            if error.args[0].code() not in _LEADS_NOTHING_YET or time.monotonic() > until_s:
                raise
            time.sleep(_ASK_AGAIN_S)


def _topic_ids(admin: AdminClient, topics: Sequence[str], timeout_s: float) -> dict[str, str]:
    """The id that each topic got when it was made; none from a broker that gives none (before Kafka 2.8)."""
    if not topics:
        return {}
    asked = admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
    ids = {topic: answer.result(timeout=timeout_s).topic_id for topic, answer in asked.items()}
    return {topic: str(one) for topic, one in ids.items() if one is not None and one != Uuid(0, 0)}


def plan(table: str, progress: Progress, now: Available, *, accept_lost: bool = False) -> list[OffsetRange]:
    """The ranges `table` has not consumed, per partition.

    Empty ones are left out, except where everything was deleted before it was read: consuming the empty range records
    where the partition began, or that its loss was accepted; else every later run would find messages missing.

    Raises ClusterChangedError when the record cannot be this cluster's, OffsetsLostError when Kafka's retention
    deleted unread messages and `accept_lost` was not given.
    """
    if progress.cluster_id is not None and progress.cluster_id != now.cluster_id:
        raise ClusterChangedError(
            f"{table} was filled from Kafka cluster {progress.cluster_id}, this is {now.cluster_id}; its offsets mean "
            "nothing here. Point kafka.bootstrap_servers at the old cluster, or start a new work_dir for the new one"
        )
    for topic, topic_id in now.topic_ids.items():
        if progress.topic_ids.get(topic, topic_id) != topic_id:
            raise ClusterChangedError(
                f"{table} was filled from another topic of the name {topic}: it was recreated since, and the offsets "
                "on record mean nothing now. Start a new work_dir, or restore the topic"
            )
    ranges: list[OffsetRange] = []
    for topic, partition, committed, earliest, latest in _unread(progress, now):
        if committed > latest:
            raise ClusterChangedError(
                f"{table} has consumed {topic}[{partition}] up to offset {committed}, but Kafka ends at {latest}: "
                "the topic was recreated or cut short. Start a new work_dir, or restore the topic"
            )
        is_first_seen_empty = topic not in progress.offsets and earliest == latest > 0
        if committed < latest or is_first_seen_empty:
            ranges.append(OffsetRange(topic, partition, max(committed, earliest), latest))
    lost = lost_ranges(progress, now)
    if lost and not accept_lost:
        told = (f"{one.size} of {one.topic}[{one.partition}] (offsets {one.start} to {one.end - 1})" for one in lost)
        raise OffsetsLostError(
            f"Kafka deleted messages that {table} had not read: {'; '.join(told)}. "
            "Nothing was read; run again with --accept-lost to go on without them"
        )
    return ranges


def lost_ranges(progress: Progress, now: Available) -> list[OffsetRange]:
    """What Kafka deleted before it was read."""
    return [
        OffsetRange(topic, partition, committed, earliest)
        for topic, partition, committed, earliest, _ in _unread(progress, now)
        if committed < earliest
    ]


def _unread(progress: Progress, now: Available) -> Iterator[tuple[str, int, int, int, int]]:
    """Of every partition: its topic and number, up to where it was consumed, its earliest and its latest offset."""
    for topic, partitions in now.bounds.items():
        for partition, (earliest, latest) in partitions.items():
            # A topic is first read from where it begins now, a partition that it gained later from that one's offset 0.
            unread = 0 if topic in progress.offsets else earliest
            yield topic, partition, progress.offsets.get(topic, {}).get(partition, unread), earliest, latest
