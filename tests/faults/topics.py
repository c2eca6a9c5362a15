"""Topics of a test's own, beside the platform's: events of the contract sent to partitions of the test's choice."""

import itertools
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from pipelines.contract.codec import encode, wire_format
from pipelines.contract.events import EventSchema, load_contract
from pipelines.contract.registry import open_registry
from pipelines.settings import Settings
from tests.platform import T0, title

TIMEOUT_S = 60


@dataclass(frozen=True)
class Topics:
    """A Kafka, and the schema registry of those who write to it."""

    bootstrap: str
    registry: str

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})

    @cached_property
    def event(self) -> EventSchema:
        return load_contract(Settings().schemas).event("title.added")

    def make(self, *names: str, partitions: int = 1) -> None:
        made = self.admin.create_topics([NewTopic(name, partitions, 1) for name in names])
        for outcome in made.values():
            outcome.result(TIMEOUT_S)

    def make_new(self, partitions: int = 1) -> str:
        """A topic that was never there before."""
        name = f"test.{uuid.uuid4().hex[:12]}"
        self.make(name, partitions=partitions)
        return name

    def grow(self, name: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(name, partitions)])[name].result(TIMEOUT_S)

    def delete(self, name: str) -> None:
        """Delete a topic and wait until the broker has forgotten it."""
        admin = self.admin
        admin.delete_topics([name])[name].result(TIMEOUT_S)
        while name in admin.list_topics(timeout=TIMEOUT_S).topics:
            pass

    def delete_before(self, name: str, partition: int, offset: int) -> None:
        """What retention does: the messages before `offset` are gone."""
        (deleted,) = self.admin.delete_records([TopicPartition(name, partition, offset)]).values()
        deleted.result(TIMEOUT_S)

    def messages(self, count: int) -> list[bytes]:
        """Good messages, each an event of its own."""
        rows = [title(f"title-{number}", "drama", at_ms=T0 + number) for number in range(count)]
        schema_id = open_registry(self.registry).register(self.event.subject, self.event.avro_json)
        return wire_format(schema_id, encode(self.event, pa.Table.from_pylist(rows, schema=self.event.arrow)))

    def send(self, name: str, values: Iterable[bytes | None], partition: int = 0) -> None:
        """Send messages to one partition, in their order; every one has arrived when this returns."""
        failures: list[Any] = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "enable.idempotence": True})
        for value in values:
            producer.produce(name, value, partition=partition, on_delivery=lambda error, _: failures.append(error))
        assert producer.flush(TIMEOUT_S) == 0
        assert not any(failures)


def offsets(name: str, partition: int, *spans: Sequence[int]) -> dict[tuple[str, int, int], int]:
    """Every offset of some ranges of a partition, once."""
    return dict.fromkeys(((name, partition, offset) for offset in itertools.chain(*spans)), 1)
