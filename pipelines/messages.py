"""Kafka messages to Arrow tables: the schema id each one names, resolved through the registry, decoded in bulk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contract.avro_decode import decode
from pipelines.contract.events import Contract, EventSchema, load_contract
from pipelines.contract.registry import SchemaRegistry, open_registry
from pipelines.errors import UnknownSchemaId
from pipelines.kafka.log import Message

HEADER_BYTES = 5  # the byte 0, then the schema id (Confluent's wire format)


@dataclass(frozen=True)
class SetAside:
    """A message that cannot be read: which one of the batch, why, and the schema id it claimed."""

    index: int
    reason: str
    schema_id: int | None


@dataclass(frozen=True)
class DecodedMessages:
    """Per event its schema, its rows and which message each row was; and what could not be read."""

    events: list[tuple[EventSchema, pa.Table, np.ndarray]]
    bad: list[SetAside]


@dataclass(frozen=True)
class MessageDecoder:
    """Decodes wire messages; travels to Ray tasks and opens what it needs there, once a process."""

    registry_location: str
    schemas: str

    def decode(self, messages: Sequence[Message]) -> DecodedMessages:
        """Decode `messages` per event; whatever cannot be is named with its reason, never raised."""
        bad: list[SetAside] = []
        by_schema: dict[int, dict[int, bytes]] = {}  # schema id -> which message -> its Avro body
        for index, message in enumerate(messages):
            value = message.value()
            if not value:
                bad.append(SetAside(index, "empty", None))
            elif len(value) < HEADER_BYTES or value[0] != 0:
                bad.append(SetAside(index, "not_wire_format", None))
            else:
                schema_id = int.from_bytes(value[1:HEADER_BYTES], "big")
                by_schema.setdefault(schema_id, {})[index] = value[HEADER_BYTES:]
        events: list[tuple[EventSchema, pa.Table, np.ndarray]] = []
        for schema_id, bodies in by_schema.items():
            try:
                writer = _writer(self.registry_location, schema_id)
            except UnknownSchemaId:
                bad += [SetAside(index, "unknown_schema_id", schema_id) for index in bodies]
                continue
            reader = _readers(self.schemas).get(f"{writer.get('namespace', '')}.{writer.get('name', '')}")
            if reader is None:
                bad += [SetAside(index, "unknown_event", schema_id) for index in bodies]
                continue
            decoded = decode(writer, list(bodies.values()), reader)
            at = np.fromiter(bodies, np.int64, len(bodies))
            bad += [SetAside(int(at[position]), str(reason), schema_id) for position, reason in decoded.bad]
            events.append((reader, decoded.table, at[decoded.ordinals]))
        return DecodedMessages(events, bad)


@cache
def _readers(schemas: str) -> dict[str, EventSchema]:
    contract: Contract = load_contract(Path(schemas))
    return {event.fullname: event for event in contract.events}


@cache
def _registry(location: str) -> SchemaRegistry:
    return open_registry(location)


@cache
def _writer(location: str, schema_id: int) -> dict[str, Any]:
    # An unknown id raises and so is not remembered: it may be registered a moment later.
    writer: dict[str, Any] = json.loads(_registry(location).lookup(schema_id))
    return writer
