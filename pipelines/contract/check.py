"""Whether a change of the event contract may go out: the working tree's events beside those that others have.

input:  a contract, and a baseline: the events of a registry or of another revision, by subject
does:   compares each event with its earlier versions under a mode; an event that is gone or moved breaks too
output: how many events are new or changed, and every break
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.contract.compatibility import Break, Rule
from pipelines.contract.events import NAMESPACE, Contract, EventSchema
from pipelines.contract.evolution import Mode, evolution_breaks
from pipelines.contract.registry import SchemaRegistry
from pipelines.errors import IncompatibleSchema

Baseline = Mapping[str, Sequence[Any]]
"""Per subject (topic and record, see `EventSchema.subject`) its schemas as parsed JSON, oldest first."""


@dataclass(frozen=True)
class EventBreak:
    """What one event breaks."""

    event: str
    found: Break

    def as_dict(self) -> dict[str, str]:
        """The break as plain JSON types."""
        return {"event": self.event, "field": self.found.path, "rule": self.found.rule, "what": self.found.what}

    def __str__(self) -> str:
        return f"{self.event}  {self.found.path}  {self.found.rule}: {self.found.what}"


@dataclass(frozen=True)
class Comparison:
    """A contract beside a baseline. `changed` counts every difference, a word of documentation included."""

    events: int
    new: int
    changed: int
    breaks: tuple[EventBreak, ...]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        breaks = [each.as_dict() for each in self.breaks]
        return {"events": self.events, "new": self.new, "changed": self.changed, "breaks": breaks}

    def __str__(self) -> str:
        verdict = {0: "none breaks", 1: "1 break"}.get(len(self.breaks), f"{len(self.breaks)} breaks")
        return f"{self.events} events, {self.new} new, {self.changed} changed, {verdict}"


def baseline_of_registry(registry: SchemaRegistry) -> Baseline:
    """The events of this contract's namespace in `registry`, which others may share.

    Raises `IncompatibleSchema` if one of them is no Avro at all, and what `SchemaRegistry` raises.
    """
    ours = sorted(subject for subject in registry.subjects() if _record_of(subject).startswith(f"{NAMESPACE}."))
    versions = {subject: [_parse(text, subject) for text in registry.versions(subject)] for subject in ours}
    return {subject: earlier for subject, earlier in versions.items() if earlier}


def baseline_of_contract(contract: Contract) -> Baseline:
    """The events of an earlier contract."""
    return {event.subject: [event.avro] for event in contract.events}


def compare(contract: Contract, baseline: Baseline, mode: Mode) -> Comparison:
    """Compare all events with their earlier versions; under `Mode.NONE` nothing breaks."""
    events = {event.fullname: event for event in contract.events}
    changed: set[str] = set()
    breaks: list[EventBreak] = []
    for subject, earlier in baseline.items():
        record = _record_of(subject)
        event = events.get(record)
        if event is not None and (event.subject != subject or event.avro != earlier[-1]):
            changed.add(record)
        if mode is not Mode.NONE:
            name = event.name if event is not None else _name_of(earlier[-1], record)
            breaks += [EventBreak(name, found) for found in _breaks(subject, event, earlier, mode)]
    new = events.keys() - {_record_of(subject) for subject in baseline}
    return Comparison(len(events), len(new), len(changed), tuple(breaks))


def _breaks(subject: str, event: EventSchema | None, earlier: Sequence[Any], mode: Mode) -> list[Break]:
    record = _record_of(subject)
    if event is None:
        return [Break(record, Rule.EVENT_REMOVED, "its schema is gone; keep it while anybody sends or stores it")]
    if event.subject != subject:
        topic = subject.removesuffix(f"-{record}")
        what = f"it moved from topic {topic} to {event.topic}; leave it, and give the new topic a record of its own"
        return [Break(record, Rule.TOPIC_MOVED, what)]
    name = _name_of(earlier[-1], event.name)
    renamed = Break(record, Rule.EVENT_RENAMED, f"its event_name changed from {name} to {event.name}")
    try:
        return [*([renamed] if name != event.name else []), *evolution_breaks(mode, event.avro, earlier)]
    except IncompatibleSchema as unreadable:
        return [Break(record, Rule.UNREADABLE_SCHEMA, str(unreadable))]


def _name_of(avro: Any, otherwise: str) -> str:
    """The `event_name` with which a schema was registered; others may have registered it without."""
    return str(avro.get("event_name", otherwise)) if isinstance(avro, dict) else otherwise


def _parse(text: str, subject: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise IncompatibleSchema(f"the registry's schema of {subject} is no Avro: {text:.80}") from None


def _record_of(subject: str) -> str:
    """The full name of the record, which unlike a topic has no hyphen."""
    return subject.rpartition("-")[2]
