"""A consumer as it is usually written: message by message, fastavro, ids hashed, rows gathered into Parquet files."""

import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Message

from pipelines.contract.registry import SchemaRegistry, open_registry
from pipelines.errors import UnknownSchemaId
from pipelines.kafka.offsets import OffsetRange
from tests.benchmarks.peers.consuming import Consumed, consume, on_all_processes

HASHED = ("user_id", "profile_id", "session_id", "device_id")
ROWS_PER_FILE = 50_000


def per_message(bootstrap: str, ranges: Sequence[OffsetRange], registry: str, salt: str, folder: Path) -> Consumed:
    """Consume `ranges` on all processes; `folder` then has a folder of Parquet files for each event."""
    folder.mkdir()
    parts = on_all_processes(partial(_read, bootstrap, registry, salt, folder), ranges)
    return Consumed(sum(n for n, _, _ in parts), max(end for *_, end in parts) - min(start for _, start, _ in parts))


def _read(
    bootstrap: str, registry: str, salt: str, folder: Path, ranges: list[OffsetRange]
) -> tuple[int, float, float]:
    started = time.monotonic()
    messages = 0
    writer = _Writer(open_registry(registry), salt, folder)
    for batch in consume(bootstrap, ranges, whole=False):
        for message in batch:
            writer.add(message)
        messages += len(batch)
    writer.flush()
    return messages, started, time.monotonic()


@dataclass
class _Writer:
    registry: SchemaRegistry
    salt: str
    folder: Path
    schemas: dict[int, Any] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Decode one message and keep its row; one that cannot be decoded is no row."""
        value = message.value() or b""
        schema = self._schema(int.from_bytes(value[1:5], "big")) if len(value) > 5 and value[0] == 0 else None
        if schema is None:
            return
        try:
            record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        except (EOFError, ValueError, IndexError, OverflowError):
            return
        row = record.pop("envelope")
        for name in row.keys() & record.keys():  # a property that is called as a field of the envelope
            record[f"{row['event_name'].partition('.')[0]}_{name}"] = record.pop(name)
        row.update(record)
        for name in HASHED:
            if row[name] is not None:
                row[name] = hashlib.sha256((row[name] + self.salt).encode()).hexdigest()
        row |= {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        rows = self.rows.setdefault(schema["name"], [])
        rows.append(row)
        if len(rows) == ROWS_PER_FILE:
            self._write(schema["name"])

    def flush(self) -> None:
        """Write what is left."""
        for name in list(self.rows):
            self._write(name)

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self.schemas:
            try:
                self.schemas[schema_id] = fastavro.parse_schema(json.loads(self.registry.lookup(schema_id)))
            except UnknownSchemaId:
                self.schemas[schema_id] = None
        return self.schemas[schema_id]

    def _write(self, name: str) -> None:
        rows = self.rows.pop(name)
        target = self.folder / name
        target.mkdir(exist_ok=True)
        first = rows[0]
        pq.write_table(
            pa.Table.from_pylist(rows), target / f"{first['topic']}-{first['partition']}-{first['offset']}.parquet"
        )
