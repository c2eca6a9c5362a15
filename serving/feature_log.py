"""What look-ups answered, kept to be compared with what the batch says of the same instants (`reel consistency`).

How and of whom: `answer_log.py`. A row is one key of one feature group.

column         type          is
at             timestamp     when it was answered (UTC, ms)
as_of          timestamp     the instant of the values: that of the answer, or, where they hold an event that is not
                             older than the group's delay, the first that knows it; null where the store could not say
group          text          the feature group
version        text          fingerprint of its declaration
entity         text          what the key is of
key            text          the key as the store has it; null where it is a person
user_id        text          pseudonym of the user asked for, as the store has it
profile_id     text          likewise, of the profile
values         text (JSON)   by feature
age_ms         int           as_of less the last event; null where nothing is known of the key
boundary       timestamp     of an hourly or daily group the boundary of the row that was read, else null
reason         text          why there is less than was asked for, where something failed; null where nothing did
stream         text (JSON)   what the stream had processed, in its own words (`meta` of the store); null: none ever ran
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from features.declarations import FeatureGroup
from features.packing import boundary_ms, newest_asked_ms
from features.windows import Cadence
from serving.answer_log import AnswerLog
from serving.consent_gate import Hashes
from serving.online_store import OnlineStore
from serving.settings import ServedFeatureSettings

STREAM = "stream"
"""Among the store's `meta`: how far the stream has come."""
_TIMESTAMP = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        ("at", _TIMESTAMP),
        ("as_of", _TIMESTAMP),
        ("group", pa.string()),
        ("version", pa.string()),
        ("entity", pa.string()),
        ("key", pa.string()),
        ("user_id", pa.string()),
        ("profile_id", pa.string()),
        ("values", pa.string()),
        ("age_ms", pa.int64()),
        ("boundary", _TIMESTAMP),
        ("reason", pa.string()),
        ("stream", pa.string()),
    ]
)


@dataclass(frozen=True)
class ServedFeatures:
    """One key of one group. `about` is None where it is about nobody."""

    group: FeatureGroup
    entity: str
    name: str
    about: Hashes | None
    values: dict[str, Any]
    age_ms: int | None
    as_of_ms: int | None
    packed: bytes | None
    reason: str | None
    stream: bytes | None
    at_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def row(self) -> dict[str, Any]:
        """As it is written."""
        is_row = self.packed is not None and self.age_ms is not None and self.group.cadence is not Cadence.EVENT
        as_of_ms, age_ms = self.as_of_ms, self.age_ms
        if as_of_ms is not None and age_ms is not None:
            last_event_ms = as_of_ms - age_ms
            as_of_ms = newest_asked_ms(self.group, as_of_ms, age_ms)
            age_ms = as_of_ms - last_event_ms
        return {
            "at": self.at_ms,
            "as_of": as_of_ms,
            "group": self.group.name,
            "version": self.group.fingerprint.hex(),
            "entity": self.entity,
            "key" if self.about is None else self.entity: self.name,
            "values": json.dumps(self.values, separators=(",", ":")),
            "age_ms": age_ms,
            "boundary": boundary_ms(self.group, self.packed) if is_row and self.packed is not None else None,
            "reason": self.reason,
            "stream": None if self.stream is None else self.stream.decode(),
        }


class FeatureLog(AnswerLog[ServedFeatures]):
    """The log of one process."""

    def __init__(self, settings: ServedFeatureSettings, open_store: Callable[[], OnlineStore]) -> None:
        super().__init__("features", SCHEMA, settings, open_store)
        self._share = settings.share
        self._random = random.Random()

    def drawn(self, keys: int) -> Sequence[int]:
        """Which of so many keys are logged, by their places."""
        if self._share >= 1:
            return range(keys)
        return [place for place in range(keys) if self._random.random() < self._share]
