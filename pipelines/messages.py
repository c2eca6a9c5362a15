"""Kafka messages to Arrow tables: the schema id each one names, resolved through the registry, decoded in bulk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contract.avro_decode import decode
from pipelines.contract.events import Contract, EventSchema, load_contract
from pipelines.contract.registry import SchemaRegistry, open_registry
from pipelines.errors import IncompatibleSchema, UnknownSchemaId

HEADER_BYTES = 5  # the byte 0, then the schema id (Confluent's wire format)
_LARGEST_ID = 2**31 - 1  # a registry's ids are signed


@dataclass(frozen=True)
class SetAside:
    """A message that cannot be read: which one of the batch, why, and the schema id it claimed."""

    index: int
    reason: str
    schema_id: int | None


@dataclass(frozen=True)
class DecodedMessages:
    """Per schema its event, its rows and which message each row was; and what could not be read."""

    events: list[tuple[EventSchema, pa.Table, NDArray[np.int64]]]
    bad: list[SetAside]


@dataclass(frozen=True)
class MessageDecoder:
    """Decodes wire messages; travels to Ray tasks and opens what it needs there, once a process."""

    registry_location: str
    schemas: str

    def decode(self, values: Sequence[bytes | None], wanted: frozenset[str] | None = None) -> DecodedMessages:
        """Decode messages per schema; whatever cannot be is named with its reason, never raised.

        Of events whose name is not among the `wanted`, if these are given, nothing is decoded.
        """
        bad, by_schema = _by_schema(values)
        events: list[tuple[EventSchema, pa.Table, NDArray[np.int64]]] = []
        for schema_id, at in by_schema.items():
            try:
                writer = _writer(self.registry_location, schema_id)
            except UnknownSchemaId:
                bad += [SetAside(index, "unknown_schema_id", schema_id) for index in at.tolist()]
                continue
            reader = _readers(self.schemas).get(_record_name(writer))
            if reader is None:
                bad += [SetAside(index, "unknown_event", schema_id) for index in at.tolist()]
                continue
            if wanted is not None and reader.name not in wanted:
                continue
            bodies = values if len(at) == len(values) else [values[index] for index in at.tolist()]
            try:
                decoded = decode(writer, bodies, reader, HEADER_BYTES)  # type: ignore[arg-type]  # a None has no id
            except IncompatibleSchema:
                bad += [SetAside(index, "incompatible_schema", schema_id) for index in at.tolist()]
                continue
            bad += [SetAside(int(at[position]), str(reason), schema_id) for position, reason in decoded.bad]
            events.append((reader, decoded.table, at[decoded.ordinals]))
        return DecodedMessages(events, bad)


def _by_schema(values: Sequence[bytes | None]) -> tuple[list[SetAside], dict[int, NDArray[np.int64]]]:
    """Which messages name which schema id, in the order of their first; and those that name none."""
    heads = b"".join([(value or b"")[:HEADER_BYTES].ljust(HEADER_BYTES, b"\xff") for value in values])
    bytes_of = np.frombuffer(heads, np.uint8).reshape(-1, HEADER_BYTES)
    is_wire = bytes_of[:, 0] == 0
    bad: list[SetAside] = []
    for index in np.flatnonzero(~is_wire).tolist():
        bad.append(SetAside(index, "not_wire_format" if values[index] else "empty", None))
    # A value that ends within its header was filled up with 0xff, which is no schema id either.
    for index in np.flatnonzero(is_wire & (bytes_of[:, -1] == 0xFF)).tolist():
        if len(values[index] or b"") < HEADER_BYTES:
            is_wire[index] = False
            bad.append(SetAside(index, "not_wire_format", None))
    wire = np.flatnonzero(is_wire)
    ids = np.ascontiguousarray(bytes_of[wire, 1:]).view(">u4").ravel()
    found, first, counts = np.unique(ids, return_index=True, return_counts=True)
    # One sort brings the messages of each id together, in their order: rubbish may name as many ids as it has messages.
    together = np.split(wire[np.argsort(ids, kind="stable")], np.cumsum(counts)[:-1])
    return bad, {int(found[number]): together[number] for number in np.argsort(first, kind="stable")}


@cache
def _readers(schemas: str) -> dict[str, EventSchema]:
    contract: Contract = load_contract(Path(schemas))
    return {event.fullname: event for event in contract.events}


@cache
def _registry(location: str) -> SchemaRegistry:
    return open_registry(location)


@cache
def _writer(location: str, schema_id: int) -> Any:
    """The writer's schema; None for one that is no Avro, as a registry shared with others may have."""
    if schema_id > _LARGEST_ID:  # a server would refuse the question rather than answer it
        raise UnknownSchemaId(schema_id, location)
    # An unknown id raises and so is not remembered: it may be registered a moment later.
    text = _registry(location).lookup(schema_id)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _record_name(writer: Any) -> str:
    """The full name of the record that an Avro schema describes; "" for any other schema."""
    if not isinstance(writer, dict):
        return ""
    name, namespace = str(writer.get("name", "")), str(writer.get("namespace", ""))
    return name if "." in name or not namespace else f"{namespace}.{name}"
