"""Events into the log: the way in for the simulator, importers and tests.

input:  flat Arrow tables, one event each
does:   registers the event's schema, encodes in bulk, keys each message by its viewer, waits for delivery
output: messages in Confluent's wire format on the event's topic, their timestamp the event's
"""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from pipelines.contract.codec import encode_in_chunks, wire_format
from pipelines.contract.events import TIMESTAMP, Contract, EventSchema
from pipelines.contract.registry import SchemaRegistry, open_registry
from pipelines.event_batch import RubbishMessage
from pipelines.kafka.embedded import EmbeddedLog
from pipelines.kafka.log import bootstrap_servers
from pipelines.kafka.message import Headers
from pipelines.kafka.offsets import BrokerUnreachableError
from pipelines.kafka.write import KafkaWriter
from pipelines.settings import Settings

DEFAULT_TIMEOUT_S = 10.0
KEY_COLUMNS = ("profile_id", "user_id", "content_id")  # the first that is there: a viewer's events keep their order
_LEADER_POLL_S = 0.1
_LEADER_ATTEMPT_S = 2.0  # several short ones: one of 10 s has been seen to end without having found a leader


class _Log(Protocol):
    def append(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None: ...


class Producer:
    """Writes events to Kafka, or to the embedded log of a `bootstrap_servers` like `embedded:PATH`.

    Use it as a context manager: leaving the block waits for every delivery. `client` holds further librdkafka
    settings. Raises `BrokerUnreachableError` within `timeout_s` if no broker answers.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        contract: Contract,
        registry: SchemaRegistry,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        self._contract = contract
        self._registry = registry
        self._kafka: KafkaWriter | None = None
        embedded = EmbeddedLog.of(bootstrap_servers)
        if embedded is None:
            self._kafka = KafkaWriter({"bootstrap.servers": bootstrap_servers, **(client or {})}, timeout_s)
        self._log: _Log = self._kafka or embedded  # type: ignore[assignment]  # one of the two is there

    def schema_id(self, event: EventSchema) -> int:
        """The id under which the event's schema is registered, registering it if need be."""
        return self._registry.register(event.subject, event.avro_json)

    def produce(
        self, event: str | EventSchema, table: pa.Table, headers: Sequence[Headers | None] | None = None
    ) -> None:
        """Queue one message for each row of `table` (the flat columns of `event`, see `codec.encode`).

        The key is the profile, else the user, else the title; `headers`, one for each row, travel along.
        Raises `ContractError`, `EncodeError`, `UnknownTopicError`, `BrokerUnreachableError`, `DeliveryFailed`.
        """
        event = self._contract.event(event) if isinstance(event, str) else event
        schema_id, row = self.schema_id(event), 0
        for bodies in encode_in_chunks(event, table):  # while one chunk is sent, the next is encoded
            rows = table.slice(row, len(bodies))
            timestamps = rows["event_timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_pylist()
            carried = None if headers is None else headers[row : row + len(bodies)]
            self._log.append(event.topic, keys_of(rows), wire_format(schema_id, bodies), timestamps, carried)
            row += len(bodies)

    def produce_rubbish(self, rubbish: RubbishMessage) -> None:
        """Queue a message that is no event; a damaged body gets the genuine header of the event it once was."""
        header = b""
        if rubbish.event_name is not None:
            event = self._contract.event(rubbish.event_name, rubbish.topic)
            header = b"\0" + self.schema_id(event).to_bytes(4, "big")
        self.produce_bytes(rubbish.topic, None, header + rubbish.value, rubbish.timestamp_ms)

    def produce_bytes(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int | None = None
    ) -> None:
        """Queue one message as it is; without `timestamp_ms` it bears the time of now."""
        self._log.append(topic, [key], [value], [time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms])

    def flush(self) -> None:
        """Wait until everything queued has arrived; raises `DeliveryFailed` or `BrokerUnreachableError`."""
        if self._kafka is not None:
            self._kafka.flush()

    def close(self) -> None:
        """Let go of the connection, and of what has not arrived."""
        if self._kafka is not None:
            self._kafka.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()


def open_producer(settings: Settings, contract: Contract, topics: Sequence[str]) -> Producer:
    """Into the log that is configured, in which these topics are made if they are missing.

    Raises `NoBrokerError`, `BrokerUnreachableError`.
    """
    bootstrap = bootstrap_servers(settings)
    timeout_s, client = settings.kafka.timeout_s, settings.kafka.client
    ensure_topics(bootstrap, topics, settings.kafka.partitions, timeout_s=timeout_s, client=client)
    registry = open_registry(settings.registry_location)
    return Producer(bootstrap, contract, registry, timeout_s=timeout_s, client=client)


def ensure_topics(
    bootstrap_servers: str,
    topics: Sequence[str],
    partitions: int,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    client: Mapping[str, Any] | None = None,
) -> list[str]:
    """Make those of `topics` that are not there, with the broker's default replication; return which were made.

    They can be written and read when this returns. Topics that exist stay as they are. Raises `BrokerUnreachableError`.
    """
    embedded = EmbeddedLog.of(bootstrap_servers)
    if embedded is not None:
        embedded.ensure_topics(topics, partitions)
        return []
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0, **(client or {})})
    try:
        known = admin.list_topics(timeout=timeout_s).topics
        missing = [NewTopic(topic, partitions) for topic in topics if topic not in known]
        outcomes = admin.create_topics(missing, operation_timeout=timeout_s) if missing else {}
        made = [topic for topic, outcome in outcomes.items() if _was_made(outcome, timeout_s)]
        partitions_made = [TopicPartition(topic, number) for topic in made for number in range(partitions)]
        _wait_for_leaders(admin, partitions_made, timeout_s)
        return made
    except KafkaException as error:
        raise BrokerUnreachableError(bootstrap_servers, timeout_s, error.args[0].str()) from None


def _was_made(outcome: Any, timeout_s: float) -> bool:
    try:
        outcome.result(timeout=timeout_s)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
            return False
        raise
    return True


def _wait_for_leaders(admin: AdminClient, partitions: Sequence[TopicPartition], timeout_s: float) -> None:
    """A broker names a new partition's leader some moments before that leader serves it."""
    deadline = time.monotonic() + timeout_s
    while partitions:
        wanted = {partition: OffsetSpec.latest() for partition in partitions}  # type: ignore[no-untyped-call]
        answers = admin.list_offsets(wanted, request_timeout=min(timeout_s, _LEADER_ATTEMPT_S))
        failures = [error for answer in answers.values() if (error := answer.exception(timeout=timeout_s))]
        if not failures:
            return
        if time.monotonic() > deadline:
            raise failures[0]
        time.sleep(_LEADER_POLL_S)


def keys_of(table: pa.Table) -> list[bytes | None]:
    """The key of each event's message: of `KEY_COLUMNS` the first that has a value."""
    columns = [table[name].cast(pa.string()) for name in KEY_COLUMNS if name in table.column_names]
    if not columns:
        return [None] * table.num_rows
    keys: list[bytes | None] = pc.coalesce(*columns).cast(pa.binary()).to_pylist()
    return keys
