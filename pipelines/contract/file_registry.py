"""The embedded schema registry: one SQLite file, for a machine without a server."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipelines.contract.evolution import check_history
from pipelines.errors import RegistryRefused, RegistryUnavailable, UnknownSchemaId

_LOCK_TIMEOUT_S = 60.0
_TABLES = """
    CREATE TABLE IF NOT EXISTS schema (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        text TEXT NOT NULL UNIQUE
    );
    CREATE TABLE IF NOT EXISTS version (
        subject TEXT NOT NULL,
        version INTEGER NOT NULL,
        schema_id INTEGER NOT NULL REFERENCES schema (id),
        PRIMARY KEY (subject, version),
        UNIQUE (subject, schema_id)
    );
"""
_VERSIONS = (
    "SELECT schema_id, text FROM version JOIN schema ON schema.id = schema_id WHERE subject = ? ORDER BY version"
)


class FileRegistry:
    """A registry in one SQLite file, safe for several processes at once; it always holds Reel's rule."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._texts: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryRefused(self.path, error) from error
        with self._transaction() as connection:
            for statement in _TABLES.split(";"):
                connection.execute(statement)

    def register(self, subject: str, schema_json: str) -> int:
        """See `SchemaRegistry.register`."""
        key = (subject, schema_json)
        if key not in self._ids:
            with self._transaction() as connection:
                self._ids[key] = _register(connection, subject, schema_json)
        return self._ids[key]

    def lookup(self, schema_id: int) -> str:
        """See `SchemaRegistry.lookup`."""
        if schema_id not in self._texts:
            with self._transaction() as connection:
                found = connection.execute("SELECT text FROM schema WHERE id = ?", (schema_id,)).fetchone()
            if found is None:
                raise UnknownSchemaId(schema_id, self.path)
            self._texts[schema_id] = found[0]
        return self._texts[schema_id]

    def subjects(self) -> list[str]:
        """See `SchemaRegistry.subjects`."""
        with self._transaction() as connection:
            return [subject for (subject,) in connection.execute("SELECT DISTINCT subject FROM version ORDER BY 1")]

    def versions(self, subject: str) -> list[str]:
        """See `SchemaRegistry.versions`."""
        with self._transaction() as connection:
            return [text for _, text in connection.execute(_VERSIONS, (subject,))]

    def latest(self, subject: str) -> str | None:
        """See `SchemaRegistry.latest`."""
        return next(reversed(self.versions(subject)), None)

    def guard(self, subject: str) -> None:
        """See `SchemaRegistry.guard`: nothing to do, for every subject is guarded from the first."""

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, in which nobody else writes; undone if the block fails."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:  # commits or rolls back
                    yield connection
        except sqlite3.Error as error:
            is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            raise (RegistryUnavailable if is_busy else RegistryRefused)(self.path, error) from error


def _register(connection: sqlite3.Connection, subject: str, schema_json: str) -> int:
    versions = connection.execute(_VERSIONS, (subject,)).fetchall()
    for schema_id, text in versions:
        if text == schema_json:
            return int(schema_id)
    check_history([json.loads(text) for _, text in versions], json.loads(schema_json))
    connection.execute("INSERT OR IGNORE INTO schema (text) VALUES (?)", (schema_json,))
    (schema_id,) = connection.execute("SELECT id FROM schema WHERE text = ?", (schema_json,)).fetchone()
    connection.execute("INSERT INTO version VALUES (?, ?, ?)", (subject, len(versions) + 1, schema_id))
    return int(schema_id)
