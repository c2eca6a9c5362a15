"""Which versions of an event's schema may follow which.

Reel's own rule is the registry's FORWARD (spec 10.1) and more: fields may be added, with a default, and enums may gain
symbols where readers have a default for unknown ones; nothing else. A reader of yesterday then reads today's
messages, and a reader of today yesterday's; a breaking change is a new topic. Besides it there are the seven modes of
Confluent's registry, for comparing with registries that others keep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from pipelines.contract.avro_schema import Avro, name_of
from pipelines.contract.avro_types import link
from pipelines.contract.compatibility import Break, Rule, resolution_breaks
from pipelines.errors import IncompatibleSchema


class Mode(StrEnum):
    """A rule for what may follow: Reel's own, or one of Confluent's.

    BACKWARD: new readers read earlier messages; FORWARD: earlier readers read new messages; FULL: both. The transitive
    ones compare with all earlier versions, the others with the latest. Reel's rule compares with all: an enum that
    got its default in between does not help the readers of before.
    """

    REEL = "reel"
    NONE = "none"
    BACKWARD = "backward"
    BACKWARD_TRANSITIVE = "backward_transitive"
    FORWARD = "forward"
    FORWARD_TRANSITIVE = "forward_transitive"
    FULL = "full"
    FULL_TRANSITIVE = "full_transitive"

    @property
    def is_transitive(self) -> bool:
        """Whether all earlier versions count, not the latest alone."""
        return self is Mode.REEL or self.endswith("_transitive")

    @property
    def is_backward(self) -> bool:
        """Whether new readers must read earlier messages by Avro's schema resolution."""
        return self.startswith(("backward", "full"))

    @property
    def is_forward(self) -> bool:
        """Whether earlier readers must read new messages by Avro's schema resolution."""
        return self.startswith(("forward", "full"))


def evolution_breaks(mode: Mode, new: Any, earlier: Sequence[Any]) -> list[Break]:
    """What the Avro schema `new` breaks that may not be, under `mode`, if it follows `earlier` (parsed, oldest first).

    Raises `IncompatibleSchema` for what is no Avro schema.
    """
    after = link(new)
    found: dict[Break, None] = {}  # a set that keeps its order: several versions may break in the same way
    for old in reversed(earlier if mode.is_transitive else earlier[-1:]):
        before = link(old)
        if mode is Mode.REEL:
            found |= dict.fromkeys(_Rule().breaks(before, after, name_of(before)))
        if mode.is_backward:
            found |= dict.fromkeys(_for("a new reader of earlier messages", resolution_breaks(after, before)))
        if mode.is_forward:
            found |= dict.fromkeys(_for("an earlier reader of new messages", resolution_breaks(before, after)))
    return list(found)


def check_evolution(old: Any, new: Any) -> None:
    """Raise `IncompatibleSchema`, naming the fields, if `new` may not follow `old` under Reel's rule (parsed JSON)."""
    check_history([old], new)


def check_history(earlier: Sequence[Any], new: Any) -> None:
    """Raise `IncompatibleSchema`, naming the fields, if `new` may not follow all of `earlier` under Reel's rule."""
    found = evolution_breaks(Mode.REEL, new, earlier)
    if found:
        said = "; ".join(f"{each.path}: {each.what}" for each in found)
        raise IncompatibleSchema(f"{said}; a breaking change needs a new topic")


def _for(whom: str, found: Sequence[Break]) -> Iterator[Break]:
    return (replace(each, what=f"{each.what} ({whom})") for each in found)


class _Rule:
    """Reel's own rule."""

    def __init__(self) -> None:
        self._open: set[tuple[int, int]] = set()  # as in `compatibility`: a type may contain itself

    def breaks(self, old: Avro, new: Avro, path: str) -> Iterator[Break]:
        if old["type"] != new["type"] or _traits(old) != _traits(new):
            yield Break(path, Rule.TYPE_CHANGED, f"its type changed from {name_of(old)} to {name_of(new)}")
            return
        match old["type"]:
            case "record":
                pair = (id(old), id(new))
                if pair not in self._open:
                    self._open.add(pair)
                    yield from self._fields(old, new, path)
                    self._open.remove(pair)
            case "enum":
                yield from _symbols(old, new, path)
            case "array":
                yield from self.breaks(old["items"], new["items"], f"{path}[]")
            case "map":
                yield from self.breaks(old["values"], new["values"], f"{path}{{}}")
            case "union":
                for branches in zip(old["branches"], new["branches"], strict=True):
                    yield from self.breaks(*branches, path)

    def _fields(self, old: Avro, new: Avro, path: str) -> Iterator[Break]:
        kept = {field["name"]: field for field in new["fields"]}
        for field in old["fields"]:
            within = f"{path}.{field['name']}"
            if field["name"] not in kept:
                yield Break(within, Rule.FIELD_REMOVED, "it was removed or renamed")
                continue
            if "default" in field and "default" not in kept[field["name"]]:
                yield Break(within, Rule.DEFAULT_REMOVED, "it lost its default, which older messages may need")
            yield from self.breaks(field["type"], kept[field["name"]]["type"], within)
        known = {field["name"] for field in old["fields"]}
        for name, field in kept.items():
            if name not in known and "default" not in field:
                what = "it was added without a default, which older messages need"
                yield Break(f"{path}.{name}", Rule.FIELD_ADDED_WITHOUT_DEFAULT, what)


def _symbols(old: Avro, new: Avro, path: str) -> Iterator[Break]:
    if gone := [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]:
        yield Break(path, Rule.SYMBOLS_REMOVED, f"it lost the symbols {', '.join(gone)}")
    added = [symbol for symbol in new["symbols"] if symbol not in old["symbols"]]
    if added and old["default"] is None:
        what = f"it gained the symbols {', '.join(added)}, and older readers have no default for them"
        yield Break(path, Rule.SYMBOLS_ADDED, what)


def _traits(avro: Avro) -> tuple[object, ...]:
    """What makes two types of one kind different types."""
    return (avro.get("fullname"), avro.get("logicalType"), avro.get("size"), len(avro.get("branches", ())))
