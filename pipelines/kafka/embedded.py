"""An event log in one SQLite file, for machines without Java: topics, partitions and offsets as Kafka has them.

It stands in for a broker when `kafka.bootstrap_servers` is `embedded:PATH`. Ingest, and everything after it, treats
it exactly as Kafka: it plans offsets, reads ranges and records what it has consumed.
"""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipelines.errors import ReelError
from pipelines.kafka.message import Headers, Messages
from pipelines.kafka.offsets import Available, OffsetRange, UnknownTopicError
from pipelines.processes import locked

PREFIX = "embedded:"
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS cluster (id TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS message (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
        key BLOB, value BLOB, timestamp_ms INTEGER NOT NULL, headers TEXT,
        PRIMARY KEY (topic, partition, offset)
    ) WITHOUT ROWID;
"""


class EmbeddedLogError(ReelError):
    """The file of the log cannot be used."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"the embedded event log {path} cannot be used ({reason}); check kafka.bootstrap_servers")


class EmbeddedLog:
    """The log in the file `path`, made on first use. Safe for several processes.

    Every method raises EmbeddedLogError when the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedLogError(path, error) from None
        self._prepare()

    def _prepare(self) -> None:
        # One process at a time: SQLite waits for others in a transaction, but not to change the journal's mode.
        try:
            with locked(self.path.with_name(f"{self.path.name}.lock")), self._connect() as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
                if "headers" not in {name for _, name, *_ in connection.execute("PRAGMA table_info(message)")}:
                    connection.execute("ALTER TABLE message ADD COLUMN headers TEXT")  # made before there were any
                connection.execute(
                    "INSERT INTO cluster SELECT ? WHERE NOT EXISTS (SELECT 1 FROM cluster)",
                    (f"embedded-{uuid.uuid4()}",),
                )
        except OSError as error:
            raise EmbeddedLogError(self.path, error) from None

    @classmethod
    def of(cls, bootstrap_servers: str) -> "EmbeddedLog | None":
        """The log that `embedded:PATH` names; None for the address of a broker."""
        if not bootstrap_servers.startswith(PREFIX):
            return None
        return cls(Path(bootstrap_servers.removeprefix(PREFIX)))

    def ensure_topics(self, topics: Sequence[str], partitions: int) -> None:
        """Make the topics that are not there yet."""
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO topic (name, partitions) VALUES (?, ?)", [(name, partitions) for name in topics]
            )

    def append(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers | None] | None = None,
    ) -> None:
        """Append messages durably, in order, each to the partition of its key. Raises UnknownTopicError."""
        headers = [None] * len(values) if headers is None else headers
        with self._connect() as connection:
            # IMMEDIATE: of two writers the second waits, so that no offset is given twice.
            connection.execute("BEGIN IMMEDIATE")
            partitions = self._partitions(connection, topic)
            following = {partition: self._latest(connection, topic, partition) for partition in range(partitions)}
            rows = []
            for key, value, timestamp_ms, carried in zip(keys, values, timestamps_ms, headers, strict=True):
                partition = zlib.crc32(key or b"") % partitions
                rows.append((topic, partition, following[partition], key, value, int(timestamp_ms), _as_text(carried)))
                following[partition] += 1
            connection.executemany(
                "INSERT INTO message (topic, partition, offset, key, value, timestamp_ms, headers) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def available(self, topics: Sequence[str]) -> Available:
        """The log's id and the bounds of `topics`. Raises UnknownTopicError."""
        with self._connect() as connection:
            (cluster_id,) = connection.execute("SELECT id FROM cluster").fetchone()
            bounds = {
                topic: {
                    partition: (0, self._latest(connection, topic, partition))
                    for partition in range(self._partitions(connection, topic))
                }
                for topic in topics
            }
        return Available(cluster_id, bounds)

    def read(self, wanted: Sequence[OffsetRange], batch: int) -> Iterator[Messages]:
        """Messages of some ranges, each in order, at most `batch` at a time."""
        with self._connect() as connection:
            for span in wanted:
                found = connection.execute(
                    "SELECT offset, key, value, headers FROM message "
                    "WHERE topic = ? AND partition = ? AND offset >= ? AND offset < ? ORDER BY offset",
                    (span.topic, span.partition, span.start, span.end),
                )
                while rows := found.fetchmany(batch):
                    offsets, keys, values, headers = zip(*rows, strict=True)
                    yield Messages.of_partition(
                        span.topic, span.partition, offsets, keys, values, [_as_headers(text) for text in headers]
                    )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: committed at the end of the block, undone if it fails, then closed."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise EmbeddedLogError(self.path, error) from None

    def _partitions(self, connection: sqlite3.Connection, topic: str) -> int:
        found = connection.execute("SELECT partitions FROM topic WHERE name = ?", (topic,)).fetchone()
        if found is None:
            raise UnknownTopicError(topic, [name for (name,) in connection.execute("SELECT name FROM topic")])
        return int(found[0])

    @staticmethod
    def _latest(connection: sqlite3.Connection, topic: str, partition: int) -> int:
        (latest,) = connection.execute(
            "SELECT COALESCE(MAX(offset) + 1, 0) FROM message WHERE topic = ? AND partition = ?", (topic, partition)
        ).fetchone()
        return int(latest)


def _as_text(headers: Headers | None) -> str | None:
    if headers is None:
        return None
    return json.dumps([(name, None if value is None else value.hex()) for name, value in headers])


def _as_headers(text: str | None) -> Headers | None:
    if text is None:
        return None
    return [(name, None if value is None else bytes.fromhex(value)) for name, value in json.loads(text)]
