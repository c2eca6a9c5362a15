"""Schema registries: a small number in each message stands for the schema it was written with.

`FileRegistry` is embedded (one SQLite file); `ConfluentRegistry` talks to a server with Confluent's REST API. Both
refuse a schema that breaks the readers of the ones before it under the same subject.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from pipelines.contract.evolution import check_evolution
from pipelines.errors import IncompatibleSchema, RegistryUnavailable, UnknownSchemaId

_LOCK_TIMEOUT_S = 60.0
_REQUEST_TIMEOUT_S = 10.0
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


class SchemaRegistry(Protocol):
    """What a registry does; ids never change their meaning."""

    def register(self, subject: str, schema_json: str) -> int:
        """Return the id of `schema_json` (the same text always has the same id), made a version of `subject`.

        Raises `IncompatibleSchema` if it may not follow the subject's latest version, `RegistryUnavailable`.
        """

    def lookup(self, schema_id: int) -> str:
        """Return the schema of `schema_id`; raises `UnknownSchemaId`, `RegistryUnavailable`."""


def open_registry(location: str | Path) -> SchemaRegistry:
    """Open the registry at an http(s) URL, else the one in the file of that path, made on first use."""
    if isinstance(location, str) and location.startswith(("http://", "https://")):
        return ConfluentRegistry(location)
    return FileRegistry(Path(location))


class FileRegistry:
    """A registry in one SQLite file, safe for several processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._texts: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryUnavailable(self.path, error) from error
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

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, in which nobody else writes; undone if the block fails."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:  # commits or rolls back
                    yield connection
        except sqlite3.Error as error:
            raise RegistryUnavailable(self.path, error) from error


def _register(connection: sqlite3.Connection, subject: str, schema_json: str) -> int:
    latest = connection.execute(
        "SELECT version, text FROM version JOIN schema ON schema.id = schema_id WHERE subject = ? "
        "ORDER BY version DESC LIMIT 1",
        (subject,),
    ).fetchone()
    known = connection.execute(
        "SELECT schema_id FROM version JOIN schema ON schema.id = schema_id WHERE subject = ? AND text = ?",
        (subject, schema_json),
    ).fetchone()
    if known is not None:
        return int(known[0])
    version = 1
    if latest is not None:
        check_evolution(json.loads(latest[1]), json.loads(schema_json))
        version = latest[0] + 1
    connection.execute("INSERT OR IGNORE INTO schema (text) VALUES (?)", (schema_json,))
    (schema_id,) = connection.execute("SELECT id FROM schema WHERE text = ?", (schema_json,)).fetchone()
    connection.execute("INSERT INTO version VALUES (?, ?, ?)", (subject, version, schema_id))
    return int(schema_id)


class ConfluentRegistry:
    """A registry server with Confluent's REST API; a user and password may stand in the URL.

    confluent_kafka's own client needs further packages (an OAuth library among them) for the two calls made here.
    """

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url.rstrip("/"))
        self._client = httpx.Client(base_url=self._url, timeout=_REQUEST_TIMEOUT_S)
        self._texts: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, subject: str, schema_json: str) -> int:
        """See `SchemaRegistry.register`; the server's compatibility setting decides what may follow."""
        key = (subject, schema_json)
        if key not in self._ids:
            path = f"/subjects/{quote(subject, safe='')}/versions"
            answer = self._call("POST", path, json={"schemaType": "AVRO", "schema": schema_json})
            if answer.status_code == httpx.codes.CONFLICT:
                raise IncompatibleSchema(f"{self._name} refuses the schema of {subject}: {_message(answer)}")
            self._ids[key] = int(self._checked(answer)["id"])
        return self._ids[key]

    def lookup(self, schema_id: int) -> str:
        """See `SchemaRegistry.lookup`."""
        if schema_id not in self._texts:
            answer = self._call("GET", f"/schemas/ids/{schema_id}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise UnknownSchemaId(schema_id, self._name)
            self._texts[schema_id] = str(self._checked(answer)["schema"])
        return self._texts[schema_id]

    @property
    def _name(self) -> str:
        """The address without a password."""
        return str(self._url.copy_with(username=None, password=None))

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(self._name, error) from error

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            raise RegistryUnavailable(self._name, f"HTTP {answer.status_code}: {_message(answer)}")
        try:
            body: dict[str, Any] = answer.json()
        except json.JSONDecodeError as error:
            raise RegistryUnavailable(self._name, "it answers no JSON, so it is no registry") from error
        return body


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return answer.text[:200]
