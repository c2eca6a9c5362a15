"""What was sent, counted, and so what a pipeline must arrive at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipelines.contract.events import EventSchema

REASONS = {
    "truncated_body": "truncated",
    "unknown_schema_id": "unknown_schema_id",
    "wrong_magic_byte": "not_wire_format",
    "empty": "empty",
    "without_event_id": "missing_event_id",
    "without_session_id": "missing_session_id",
}
"""Why quarantine sets aside each kind of message that must not come in."""


@dataclass
class Ledger:
    """Counts by event, and by kind of messages that must be set aside."""

    _events: dict[tuple[str, str, str], Counter[str]] = field(default_factory=dict)  # by domain, topic and name
    _set_aside: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REASONS, 0)))

    def count(self, event: EventSchema, **counts: int) -> None:
        """Add to what is known of `event`: `distinct` valid events, `resent` copies of them, those of either that are
        of people who refuse analytics (`refused_distinct`, `refused_resent`), and the distinct ones that were `late`.
        """
        self._events.setdefault((event.domain, event.topic, event.name), Counter()).update(counts)

    def count_set_aside(self, kind: str, count: int = 1) -> None:
        """Add messages of a `kind` in `REASONS`."""
        self._set_aside[kind] += count

    @property
    def messages(self) -> int:
        """Everything that was sent."""
        return sum(counts["distinct"] + counts["resent"] for counts in self._events.values()) + self._set_aside.total()

    def to_json(self) -> dict[str, Any]:
        """Counts per event and kind, and what a pipeline must arrive at, `expected`.

        There, `bronze` is per topic what may be stored, each time it was sent; `silver` per domain the same once;
        `dropped` what was refused; `quarantined` per reason; and of what is in bronze, `duplicates` are once too many.
        """
        bronze: Counter[str] = Counter()
        silver: Counter[str] = Counter()
        for (domain, topic, _), counts in self._events.items():
            once = counts["distinct"] - counts["refused_distinct"]
            silver[domain] += once
            bronze[topic] += once + counts["resent"] - counts["refused_resent"]
        quarantined: Counter[str] = Counter()
        for kind, count in self._set_aside.items():
            quarantined[REASONS[kind]] += count
        total = sum(self._events.values(), Counter())
        return {
            "events": {f"{topic} {name}": dict(counts) for (_, topic, name), counts in sorted(self._events.items())},
            "set_aside": dict(self._set_aside),
            "late": total["late"],
            "expected": {
                "messages": self.messages,
                "bronze": dict(sorted(bronze.items())),
                "silver": dict(sorted(silver.items())),
                "dropped": total["refused_distinct"] + total["refused_resent"],
                "quarantined": {reason: count for reason, count in sorted(quarantined.items()) if count},
                "duplicates": total["resent"] - total["refused_resent"],
            },
        }
