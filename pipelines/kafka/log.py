"""Where events are read from: Kafka, or the embedded log that stands in for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.errors import ReelError
from pipelines.kafka.broker import local_bootstrap
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.message import Messages
from pipelines.kafka.offsets import Available, OffsetRange, available, client_configuration
from pipelines.kafka.read import read_ranges
from pipelines.settings import Settings


class EventLog(Protocol):
    """Topics of partitions of messages, each at its offset. Travels to Ray tasks."""

    def available(self, topics: Sequence[str]) -> Available:
        """The log's identity, and the offsets of every partition of `topics`."""

    def read(self, wanted: Sequence[OffsetRange], batch: int) -> Iterator[Messages]:
        """Messages of some ranges of one topic, each partition's in order, about `batch` at a time; returns only
        when every range was read to its end.
        """


@dataclass(frozen=True)
class KafkaLog:
    """A Kafka cluster."""

    configuration: Mapping[str, Any]
    timeout_s: float
    stall_s: float

    def available(self, topics: Sequence[str]) -> Available:
        """As `EventLog.available`. Raises BrokerUnreachableError or UnknownTopicError."""
        return available(self.configuration, topics, self.timeout_s)

    def read(self, wanted: Sequence[OffsetRange], batch: int) -> Iterator[Messages]:
        """As `EventLog.read`. Raises ReadStalledError when the broker stops delivering."""
        return read_ranges(self.configuration, wanted, batch, self.stall_s)


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
