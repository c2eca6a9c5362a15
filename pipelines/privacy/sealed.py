"""Whose a message in quarantine is: opened, as far as it can be attributed to anybody.

A message is somebody's if its event can be read and names them, if its Kafka key is their plain id, or if it is JSON
whose `user_id` is that, at any depth. What is left stays sealed and expires.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.pseudonyms import Pseudonymizer
from pipelines.erased import USER, Tombstones
from pipelines.kafka.message import Messages
from pipelines.messages import MessageDecoder
from pipelines.privacy.quarantined import as_json
from pipelines.privacy.requests import Requests
from pipelines.quarantine import BrokenSealError, opened
from pipelines.secrets import quarantine_key
from pipelines.settings import Settings


@dataclass(frozen=True)
class SealedWhose:
    """Of which request each row of `quarantine.events` is. Travels to Ray tasks."""

    by_mark: Mapping[str, int]
    by_pseudonym: Mapping[str, int]  # of profiles and sessions
    stones: Tombstones
    hasher: Pseudonymizer
    decoder: MessageDecoder
    key: bytes

    @classmethod
    def of(cls, settings: Settings, requests: Requests, stones: Tombstones, hasher: Pseudonymizer) -> "SealedWhose":
        """With the configured key and registry."""
        by_pseudonym = {
            name: number
            for number, one in enumerate(requests.by_mark.values())
            for name in one.person.profile_ids | one.person.session_ids
        }
        decoder = MessageDecoder(settings.registry_location, str(settings.schemas))
        by_mark = {mark: number for number, mark in enumerate(requests.by_mark)}
        return cls(by_mark, by_pseudonym, stones, hasher, decoder, quarantine_key(settings))

    def __call__(self, rows: pa.Table) -> NDArray[np.int64]:
        """The number of the request, shape (n,); -1 for what is nobody's, or was sealed with another key."""
        found = np.full(rows.num_rows, -1, np.int64)
        topics = np.array(rows["topic"].to_pylist())
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
        for place, (key, value) in enumerate(zip(messages.keys, messages.values, strict=True)):
            names = [key.decode("utf-8", "replace")] if key else []
            for user in (*names, *_users(as_json(value or b""))):
                number = self._of_user(user)
                if number is not None:
                    yield place, number
        for _, events, at in self.decoder.decode(messages.values).events:
            columns = [events[name].to_pylist() for name in ("user_id", "profile_id", "session_id")]
            for place, user, *others in zip(at.tolist(), *columns, strict=True):
                of_others = (
                    self.by_pseudonym.get(name) for one in others if one for name in self.hasher.candidates(one)
                )
                numbers = [self._of_user(user) if user else None, *of_others]
                yield from ((place, number) for number in numbers if number is not None)

    def _of_user(self, plain: str) -> int | None:
        return self.by_mark.get(self.stones.mark(USER, plain))


def _users(said: Any) -> Iterator[str]:
    """Every `user_id` in a JSON value."""
    if isinstance(said, dict):
        if isinstance(said.get("user_id"), str):
            yield said["user_id"]
        for one in said.values():
            yield from _users(one)
    elif isinstance(said, list):
        for one in said:
            yield from _users(one)
