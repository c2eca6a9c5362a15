"""Where events are read from: Kafka, or the embedded log that stands in for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pipelines.errors import ReelError
from pipelines.kafka.broker import local_bootstrap
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.offsets import Available, OffsetRange, available, client_configuration
from pipelines.kafka.read import read_range
from pipelines.settings import Settings


class Message(Protocol):
    """What Reel asks of a message, whichever log it comes from."""

    def offset(self) -> int:
        """Where it stands in its partition."""

    def key(self) -> bytes | None:
        """What it was partitioned by."""

    def value(self) -> bytes | None:
        """Its bytes; None is a tombstone."""


class EventLog(Protocol):
    """Topics of partitions of messages, each at its offset. Travels to Ray tasks."""

    def available(self, topics: Sequence[str]) -> Available:
        """The log's identity, and the offsets of every partition of `topics`."""

    def read(self, wanted: OffsetRange, batch: int) -> Iterator[Sequence[Message]]:
        """Messages of a range in order, `batch` at a time; returns only when the range was read to its end."""


@dataclass(frozen=True)
class KafkaLog:
    """A Kafka cluster."""

    configuration: Mapping[str, Any]
    timeout_s: float
    stall_s: float

    def available(self, topics: Sequence[str]) -> Available:
        """As `EventLog.available`. Raises BrokerUnreachableError or UnknownTopicError."""
        return available(self.configuration, topics, self.timeout_s)

    def read(self, wanted: OffsetRange, batch: int) -> Iterator[Sequence[Message]]:
        """As `EventLog.read`. Raises ReadStalledError when the broker stops delivering."""
        # A message that was delivered has an offset, which confluent_kafka's types leave open.
        return cast(Iterator[Sequence[Message]], read_range(self.configuration, wanted, batch, self.stall_s))


class NoBrokerError(ReelError):
    """No broker is configured and no local one runs."""

    def __init__(self) -> None:
        super().__init__(
            "no Kafka broker: kafka.bootstrap_servers is not set and no local broker runs; "
            "start one with `make kafka`, or set REEL_KAFKA_BOOTSTRAP_SERVERS"
        )


def bootstrap_servers(settings: Settings) -> str:
    """The configured brokers (or `embedded:PATH`), else the local broker. Raises NoBrokerError."""
    found = settings.kafka.bootstrap_servers or local_bootstrap(settings.kafka_folder)
    if found is None:
        raise NoBrokerError
    return found


def open_log(settings: Settings) -> EventLog:
    """The log that the settings name. Raises NoBrokerError when they name none and no local broker runs."""
    bootstrap = bootstrap_servers(settings)
    embedded = EmbeddedLog.of(bootstrap)
    if embedded is not None:
        return embedded
    return KafkaLog(client_configuration(settings, bootstrap), settings.kafka.timeout_s, settings.kafka.stall_s)
