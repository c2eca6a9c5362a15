"""Writing many messages to Kafka fast, in order, and knowing that all of them arrived."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipelines.errors import DeliveryFailed
from pipelines.kafka.message import Headers
from pipelines.kafka.offsets import BrokerUnreachableError, UnknownTopicError

QUEUE_MESSAGES = 100_000  # messages waiting for the broker; more and the caller waits
QUEUE_KIB = 256 << 10

# What a delivery may take from its hand-over: many times what declares a broker dead, because a queue may be long.
_DELIVERY_TIMEOUT_FACTOR = 12
_POLL_S = 0.05


class KafkaWriter:
    """Appends messages to topics.

    Idempotent: the broker's order is the caller's per partition, nothing is doubled by retries. The queue is
    bounded: `append` waits for room. Without a sign of life from the broker for `timeout_s` it gives up.
    `configuration` is librdkafka's and overrides what is set here.
    """

    def __init__(self, configuration: Mapping[str, Any], timeout_s: float) -> None:
        self._bootstrap = str(configuration["bootstrap.servers"])
        self._timeout_s = timeout_s
        self._refusal: KafkaError | None = None
        self._refused = 0
        self._broker_error = "it stopped confirming messages"
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "delivery.report.only.error": True,  # a callback per failure, not per message
                "delivery.timeout.ms": int(timeout_s * 1000 * _DELIVERY_TIMEOUT_FACTOR),
                "socket.timeout.ms": int(timeout_s * 1000),
                "linger.ms": 20,
                "batch.size": 1 << 20,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",  # Java's: a key goes to the same partition from either
                "queue.buffering.max.messages": QUEUE_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_KIB,
                "log_level": 0,  # failures come back as errors; librdkafka's own log would only repeat them
                "error_cb": self._on_broker_error,
                **configuration,
            }
        )
        self._known_topics: set[str] = set()
        self._refresh_topics()

    def append(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        """Queue messages in order, each for the partition of its key (any partition without one).

        Raises `UnknownTopicError`, `BrokerUnreachableError` or, for earlier messages too, `DeliveryFailed`. Only
        `flush` tells that they arrived.
        """
        if topic not in self._known_topics:
            self._refresh_topics()
        if topic not in self._known_topics:
            raise UnknownTopicError(topic, sorted(self._known_topics))
        # produce_batch would be the natural call, but it knows no timestamps (confluent-kafka 2.16).
        produce, on_delivery = self._producer.produce, self._on_delivery
        try:
            carried: Iterable[Headers | None] = repeat(None, len(values)) if headers is None else headers
            for key, value, timestamp_ms, header in zip(keys, values, timestamps_ms, carried, strict=True):
                while True:
                    try:
                        produce(topic, value, key, on_delivery=on_delivery, timestamp=timestamp_ms, headers=header)  # type: ignore[arg-type]  # its types know no null header
                        break
                    except BufferError:  # the queue is full
                        self._wait_until_at_most(len(self._producer) // 2)
        except KafkaException as error:
            raise DeliveryFailed(1, error.args[0].str()) from None
        self._producer.poll(0)
        self._raise_refusal()

    def flush(self) -> None:
        """Wait until the broker has confirmed every message; raises `DeliveryFailed` or `BrokerUnreachableError`."""
        self._wait_until_at_most(0)

    def close(self) -> None:
        """Let go of what was not confirmed; call `flush` before."""
        self._producer.purge()
        self._producer.poll(0)

    def _wait_until_at_most(self, limit: int) -> None:
        waiting, moved = len(self._producer), time.monotonic()
        while len(self._producer) > limit:
            self._producer.poll(_POLL_S)
            self._raise_refusal()
            if len(self._producer) < waiting:
                waiting, moved = len(self._producer), time.monotonic()
            elif time.monotonic() - moved > self._timeout_s:
                self._producer.purge()
                raise BrokerUnreachableError(
                    self._bootstrap, self._timeout_s, f"{self._broker_error}; {waiting} messages are unconfirmed"
                )
        self._raise_refusal()

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise DeliveryFailed(self._refused, self._refusal.str())

    def _refresh_topics(self) -> None:
        try:
            self._known_topics = set(self._producer.list_topics(timeout=self._timeout_s).topics)
        except KafkaException as error:
            raise BrokerUnreachableError(self._bootstrap, self._timeout_s, error.args[0].str()) from None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refusal = self._refusal or error
            self._refused += 1

    def _on_broker_error(self, error: KafkaError) -> None:
        self._broker_error = error.str()
