"""A client for schema registry servers with Confluent's REST API (Confluent's own, Apicurio's, Karapace).

confluent_kafka's own client needs further packages (an OAuth library among them) for the few calls made here.
"""

import random
import time
import weakref
from typing import Any
from urllib.parse import quote

import httpx

from pipelines.contract.evolution import Mode
from pipelines.errors import IncompatibleSchema, RegistryRefused, RegistryUnavailable, UnknownSchemaId

PATIENCE_S = 30.0
"""How long a server that does not answer, or says that it cannot now, is asked again: it may be restarting."""

GUARD = Mode.FULL_TRANSITIVE
"""What servers are told to hold subjects to. Of Confluent's modes it is the strictest that allows all that Reel's
rule allows; servers start with less than the FORWARD of spec 10.1 (Confluent's with BACKWARD, Apicurio with NONE)."""

_REQUEST_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# Servers count in Java's int. Asked for more, which rubbish on a topic does, they know no such page, not no such id.
_LARGEST_ID = 2**31 - 1
# Confluent's own numbers for what is not there: a plain 404 may be another service, or a mistyped path.
_NO_SUBJECT = {40401, 40402}
_NO_SCHEMA = 40403


class ConfluentRegistry:
    """A registry server; a user and password may stand in the URL, and are never shown."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        try:
            given = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            raise RegistryRefused("of this configuration", "its URL cannot be read") from None  # it may hold a password
        self.name = str(given.copy_with(username=None, password=None))
        # The password leaves the URL, which httpx logs.
        auth = httpx.BasicAuth(given.username, given.password) if given.userinfo else None
        self._client = httpx.Client(base_url=self.name, auth=auth, timeout=_REQUEST_TIMEOUT_S)
        # A registry is handed around and has no end of its own: its connections go when it goes.
        weakref.finalize(self, self._client.close)
        self._patience_s = patience_s
        self._texts: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, subject: str, schema_json: str) -> int:
        """See `SchemaRegistry.register`; the server's compatibility setting decides what may follow."""
        key = (subject, schema_json)
        if key not in self._ids:
            # Asked twice, for an answer may be lost, it is the same version: trying again is safe.
            answer = self._call("POST", _versions_of(subject), json={"schemaType": "AVRO", "schema": schema_json})
            if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
                raise IncompatibleSchema(f"{self.name} refuses the schema of {subject}: {_message(answer)}")
            self._ids[key] = int(self._field(answer, "id"))
        return self._ids[key]

    def lookup(self, schema_id: int) -> str:
        """See `SchemaRegistry.lookup`."""
        if schema_id > _LARGEST_ID:
            raise UnknownSchemaId(schema_id, self.name)
        if schema_id not in self._texts:
            answer = self._call("GET", f"/schemas/ids/{schema_id}")
            if _error_code(answer) == _NO_SCHEMA:
                raise UnknownSchemaId(schema_id, self.name)
            self._texts[schema_id] = str(self._field(answer, "schema"))
        return self._texts[schema_id]

    def subjects(self) -> list[str]:
        """See `SchemaRegistry.subjects`."""
        return [str(subject) for subject in self._list(self._call("GET", "/subjects"))]

    def versions(self, subject: str) -> list[str]:
        """See `SchemaRegistry.versions`."""
        answer = self._call("GET", _versions_of(subject))
        if _error_code(answer) in _NO_SUBJECT:
            return []
        numbers = sorted(int(number) for number in self._list(answer))
        texts = [self._version(subject, number) for number in numbers]
        return [text for text in texts if text is not None]

    def latest(self, subject: str) -> str | None:
        """See `SchemaRegistry.latest`."""
        return self._version(subject, "latest")

    def guard(self, subject: str) -> None:
        """See `SchemaRegistry.guard`: the subject's compatibility becomes `GUARD`."""
        self._checked(self._call("PUT", f"/config/{quote(subject, safe='')}", json={"compatibility": GUARD.upper()}))

    def _version(self, subject: str, number: int | str) -> str | None:
        answer = self._call("GET", f"{_versions_of(subject)}/{number}")
        return None if _error_code(answer) in _NO_SUBJECT else str(self._field(answer, "schema"))

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The server's answer, good or bad; asked again with growing pauses while there is none worth having."""
        give_up_at = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = self._client.request(method, path, **options)
                if not answer.is_server_error and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    return answer
                reason = f"HTTP {answer.status_code}: {_message(answer)}"
            except httpx.UnsupportedProtocol as error:
                raise RegistryRefused(self.name, error) from error
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() + pause_s > give_up_at:
                raise RegistryUnavailable(self.name, f"{reason}; asked for {self._patience_s:g} s")
            time.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _checked(self, answer: httpx.Response) -> Any:
        if not answer.is_success:
            raise RegistryRefused(self.name, f"HTTP {answer.status_code}: {_message(answer)}")
        try:
            return answer.json()
        except ValueError as error:  # no JSON, or no text even
            raise RegistryRefused(self.name, "it answers no JSON, so it is no registry") from error

    def _field(self, answer: httpx.Response, name: str) -> Any:
        body = self._checked(answer)
        if not isinstance(body, dict) or name not in body:
            raise RegistryRefused(self.name, f"it answers without {name!r}, so it is no registry: {body!r:.80}")
        return body[name]

    def _list(self, answer: httpx.Response) -> list[Any]:
        body = self._checked(answer)
        if not isinstance(body, list):
            raise RegistryRefused(self.name, f"it answers without a list, so it is no registry: {body!r:.80}")
        return body


def _versions_of(subject: str) -> str:
    return f"/subjects/{quote(subject, safe='')}/versions"


def _error_code(answer: httpx.Response) -> int | None:
    """Confluent's number for an error; None for a good answer, and for that of a server that is no registry."""
    if answer.is_success:
        return None
    try:
        return int(answer.json()["error_code"])
    except (KeyError, TypeError, ValueError):
        return None


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (KeyError, TypeError, ValueError):
        return answer.text[:200].strip() or answer.reason_phrase
