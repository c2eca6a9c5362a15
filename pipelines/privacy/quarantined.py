"""Messages in quarantine that are about a user: nobody but who has the key can say, and only of some.

A message is a user's if its event can be read and names them, if its Kafka key is their plain id, or if it is JSON
whose `user_id` is that, at any depth. What is left cannot be attributed to anybody: it stays sealed and expires within
7 days, as all of quarantine does.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from pipelines.kafka.message import Messages
from pipelines.lakehouse.files import TableFiles
from pipelines.lakehouse.scans import live_files, read_files
from pipelines.messages import HEADER_BYTES, MessageDecoder
from pipelines.privacy.readable import Row, plain
from pipelines.quarantine import opened
from pipelines.secrets import quarantine_key
from pipelines.settings import Settings

_USER = "user_id"


@dataclass(frozen=True)
class Unsealing:
    """Quarantine as it is now, and what opens it."""

    table: TableFiles
    paths: tuple[str, ...]
    key: bytes
    decoder: MessageDecoder

    @classmethod
    def of(cls, settings: Settings, quarantine: Table) -> "Unsealing":
        """With the configured key and registry."""
        return cls(
            TableFiles.of(quarantine),
            tuple(file.file_path for file in live_files(quarantine)),
            quarantine_key(settings),
            MessageDecoder(settings.registry_location, str(settings.schemas)),
        )

    def rows_about(self, user: str) -> Iterator[Row]:
        """Every message that is the user's: where it stood, why it was set aside, and what it says.

        Raises BrokenSealError for messages that were sealed with another key.
        """
        for path in self.paths:
            rows = read_files(self.table, [path], self.table.arrow_schema.names)
            topics = rows["topic"].to_pylist()
            for topic in sorted(set(topics)):
                some = rows.filter(pa.array([one == topic for one in topics]))
                messages = opened(self.key, topic, some)
                for place, said in self._about(messages, user).items():
                    where = some.slice(place, 1).select(["topic", "partition", "offset", "ingested_at", "reason"])
                    yield {**plain(where.to_pylist()[0]), "message": said}

    def _about(self, messages: Messages, user: str) -> dict[int, Any]:
        """What the user's messages say, by their place."""
        found: dict[int, Any] = {}
        for _, rows, at in self.decoder.decode(messages.values).events:
            for place, row in zip(at.tolist(), rows.to_pylist(), strict=True):
                if row[_USER] == user:
                    found[place] = plain({name: value for name, value in row.items() if value is not None})
        for place, (key, value) in enumerate(zip(messages.keys, messages.values, strict=True)):
            if place in found:
                continue
            said = _as_json(value or b"")
            if key == user.encode() or _names(said, user):
                found[place] = plain(value or b"") if said is None else said
        return dict(sorted(found.items()))


def _as_json(value: bytes) -> Any:
    """What a message says in JSON, behind a schema id or not; None if it is none."""
    for text in (value, value[HEADER_BYTES:]):
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict | list):
            return said
    return None


def _names(said: Any, user: str) -> bool:
    if isinstance(said, dict):
        return said.get(_USER) == user or any(_names(one, user) for one in said.values())
    return isinstance(said, list) and any(_names(one, user) for one in said)
