"""What every source of events yields: flat Arrow tables per event name, a bounded slice of time at a go."""

from dataclasses import dataclass, field

import pyarrow as pa

TIMESTAMP = pa.timestamp("ms", tz="UTC")

ENVELOPE = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_name", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("client_timestamp", TIMESTAMP),
        pa.field("source", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("profile_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("device_id", pa.string()),
        pa.field("device_type", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("market", pa.string()),
        pa.field("app_version", pa.string()),
        pa.field("os_version", pa.string()),
        pa.field("connection_type", pa.string()),
        pa.field("ip", pa.string()),
        pa.field("user_agent", pa.string()),
        pa.field("consent_analytics", pa.bool_()),
        pa.field("consent_personalization", pa.bool_()),
        pa.field("consent_ad_targeting", pa.bool_()),
    ]
)
"""The flat columns that every event has before its own properties (spec 2.2 and 10.2)."""


@dataclass(frozen=True)
class RubbishMessage:
    """A message that is no event, for what reads Kafka to set aside.

    With an `event_name`, `value` is a damaged Avro body and the producer puts the genuine five-byte header of that
    event's schema before it; without one, `value` is the whole message.
    """

    topic: str
    kind: str
    value: bytes
    timestamp_ms: int
    event_name: str | None = None


@dataclass(frozen=True)
class EventBatch:
    """The events received in [start_ms, end_ms): per event name one table, its rows by `event_timestamp`."""

    start_ms: int
    end_ms: int
    tables: dict[str, pa.Table]
    rubbish: list[RubbishMessage] = field(default_factory=list)

    @property
    def events(self) -> int:
        """Number of events in the batch's tables, resent ones counted each time."""
        return sum(table.num_rows for table in self.tables.values())
