"""Whose a message in quarantine is: opened, as far as it can be attributed (`privacy.quarantined` says when)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.pseudonyms import Pseudonymizer
from pipelines.kafka.message import Messages
from pipelines.messages import MessageDecoder
from pipelines.privacy.quarantined import ID_COLUMNS, as_json, ids_in_json
from pipelines.privacy.requests import Requests
from pipelines.quarantine import BrokenSealError, opened
from pipelines.secrets import quarantine_key
from pipelines.settings import Settings


@dataclass(frozen=True)
class SealedWhose:
    """Of which request each row of `quarantine.events` is. Travels to Ray tasks."""

    owners: Mapping[str, Mapping[str, int]]  # by column and pseudonym, the number of the request
    hasher: Pseudonymizer
    decoder: MessageDecoder
    key: bytes

    @classmethod
    def of(cls, settings: Settings, requests: Requests, hasher: Pseudonymizer) -> "SealedWhose":
        """With the configured key and registry."""
        people = [one.person for one in requests.by_mark.values()]
        owners = {
            column: {name: number for number, one in enumerate(people) for name in one.ids.get(column, ())}
            for column in ID_COLUMNS
        }
        decoder = MessageDecoder(settings.registry_location, str(settings.schemas))
        return cls(owners, hasher, decoder, quarantine_key(settings))

    def __call__(self, rows: pa.Table) -> NDArray[np.int64]:
        """The number of the request, shape (n,); -1 for what is nobody's, or was sealed with another key."""
        found = np.full(rows.num_rows, -1, np.int64)
        topics = np.array(rows["topic"].to_pylist(), object)
        for topic in sorted(set(topics.tolist())):
            at = np.flatnonzero(topics == topic)
            try:
                messages = opened(self.key, topic, rows.take(pa.array(at)))
            except BrokenSealError:
                continue
            for place, number in self._owned(messages):
                found[at[place]] = number
        return found

    def _owned(self, messages: Messages) -> Iterator[tuple[int, int]]:
        """(place, request) of each message that is somebody's."""
        named: dict[int, Mapping[str, str | None]] = {}
        for _, events, at in self.decoder.decode(messages.values).events:
            named.update(zip(at.tolist(), events.select(ID_COLUMNS).to_pylist(), strict=True))
        for place, (key, value) in enumerate(zip(messages.keys, messages.values, strict=True)):
            ids = named[place] if place in named else ids_in_json(as_json(value or b""))
            if ids or key is None:
                number = self._owner(ids)
            else:  # an event's key is its profile, else its user
                text = key.decode(errors="replace")
                number = self._owner({"user_id": text})
                number = self._owner({"profile_id": text}) if number is None else number
            if number is not None:
                yield place, number

    def _owner(self, ids: Mapping[str, str | None]) -> int | None:
        """By the user if one is named, else by the profile or session."""
        columns = ("user_id",) if ids.get("user_id") is not None else ID_COLUMNS
        for column in columns:
            plain = ids.get(column)
            for name in self.hasher.candidates(plain) if plain is not None else ():
                if name in self.owners[column]:
                    return self.owners[column][name]
        return None
