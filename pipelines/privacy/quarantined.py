"""Messages in quarantine that are about a person: nobody but who has the key can say, and only of some.

A message is theirs if it names their user, or names no user and their profile or session. What it names is read from
its event where that can be decoded, else from its fields where it is JSON, else from its Kafka key. What is left cannot
be attributed to anybody: it stays sealed and expires within 7 days, as all of quarantine does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from features.pseudonyms import Pseudonymizer
from pipelines.kafka.message import Messages
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, read_files
from pipelines.messages import HEADER_BYTES, MessageDecoder
from pipelines.privacy.person import Person
from pipelines.privacy.readable import Row, plain
from pipelines.quarantine import opened
from pipelines.secrets import pseudonymizer, quarantine_key
from pipelines.settings import Settings

ID_COLUMNS = ("user_id", "profile_id", "session_id")


@dataclass(frozen=True)
class Unsealing:
    """Quarantine as it is now, and what opens it."""

    table: TableFiles
    paths: tuple[str, ...]
    key: bytes
    decoder: MessageDecoder
    hasher: Pseudonymizer

    @classmethod
    def of(cls, settings: Settings, quarantine: Table) -> "Unsealing":
        """With the configured key and registry."""
        return cls(
            TableFiles.of(quarantine),
            tuple(file.file_path for file in live_files(quarantine)),
            quarantine_key(settings),
            MessageDecoder(settings.registry_location, str(settings.schemas)),
            pseudonymizer(settings),
        )

    def rows_about(self, person: Person) -> Iterator[Row]:
        """Every message that is theirs: where it stood, why it was set aside, and what it says.

        Raises BrokenSealError for messages that were sealed with another key.
        """
        for path in self.paths:
            rows = read_files(self.table, [path], self.table.arrow_schema.names)
            topics = rows["topic"].to_pylist()
            for topic in sorted(set(topics)):
                some = rows.filter(pa.array([one == topic for one in topics]))
                messages = opened(self.key, topic, some)
                for place, said in self._about(messages, person).items():
                    where = some.slice(place, 1).select(["topic", "partition", "offset", "ingested_at", "reason"])
                    yield {**plain(where.to_pylist()[0]), "message": said}

    def _about(self, messages: Messages, person: Person) -> dict[int, Any]:
        """What the person's messages say, by their place."""
        found: dict[int, Any] = {}
        unread = dict(enumerate(messages.values))
        for _, rows, at in self.decoder.decode(messages.values).events:
            for place, row in zip(at.tolist(), rows.to_pylist(), strict=True):
                del unread[place]
                if self._is_theirs(row, person):
                    found[place] = plain({name: value for name, value in row.items() if value is not None})
        for place, value in unread.items():
            said, key = as_json(value or b""), messages.keys[place]
            if named := ids_in_json(said):
                is_theirs = self._is_theirs(named, person)
            else:  # an event's key is its profile, else its user
                is_theirs = key is not None and self._is_one_of(
                    key.decode(errors="replace"), person, "profile_id", "user_id"
                )
            if is_theirs:
                found[place] = plain(value or b"") if said is None else said
        return dict(sorted(found.items()))

    def _is_theirs(self, row: Mapping[str, Any], person: Person) -> bool:
        if row.get("user_id") is not None:
            return self._is_one_of(row["user_id"], person, "user_id")
        return any(self._is_one_of(row[name], person, name) for name in ID_COLUMNS if row.get(name) is not None)

    def _is_one_of(self, plain_id: str, person: Person, *columns: str) -> bool:
        hashes = self.hasher.candidates(plain_id)
        return any(one in person.ids.get(name, ()) for name in columns for one in hashes)


def as_json(value: bytes) -> Any:
    """What a message says in JSON, behind a schema id or not; None if it is none."""
    for text in (value, value[HEADER_BYTES:]):
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict | list):
            return said
    return None


def ids_in_json(said: Any) -> dict[str, Any]:
    """The ids in JSON, those of its outermost object first."""
    if isinstance(said, list):
        said = dict(enumerate(said))
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {}
    for one in said.values():
        found = ids_in_json(one) | found
    return found | {name: said[name] for name in ID_COLUMNS if isinstance(said.get(name), str)}
