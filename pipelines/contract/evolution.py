"""What may change in an event's schema: fields may be added, with a default; nothing else.

This is the registry's FORWARD rule (spec 10.1) and more: a reader of yesterday reads today's messages, and a reader
of today reads yesterday's. A breaking change is a new topic.
"""

from typing import Any

from pipelines.contract.avro_schema import Avro, expand, name_of
from pipelines.errors import IncompatibleSchema


def check_evolution(old: Any, new: Any) -> None:
    """Raise `IncompatibleSchema`, naming the field, if the Avro schema `new` may not follow `old` (parsed JSON)."""
    before, after = expand(old), expand(new)
    _check(before, after, name_of(before))


def _check(old: Avro, new: Avro, path: str) -> None:
    if old["type"] != new["type"] or _names(old) != _names(new):
        raise _refusal(path, f"its type changed from {name_of(old)} to {name_of(new)}")
    match old["type"]:
        case "record":
            _check_fields(old, new, path)
        case "enum":
            _check_symbols(old, new, path)
        case "array":
            _check(old["items"], new["items"], f"{path}[]")
        case "map":
            _check(old["values"], new["values"], f"{path}{{}}")
        case "union":
            if len(old["branches"]) != len(new["branches"]):
                raise _refusal(path, f"its type changed from {name_of(old)} to {name_of(new)}")
            for each_old, each_new in zip(old["branches"], new["branches"], strict=True):
                _check(each_old, each_new, path)


def _check_fields(old: Avro, new: Avro, path: str) -> None:
    kept = {field["name"]: field for field in new["fields"]}
    known = {field["name"] for field in old["fields"]}
    for field in old["fields"]:
        if field["name"] not in kept:
            raise _refusal(f"{path}.{field['name']}", "it was removed or renamed")
        if "default" in field and "default" not in kept[field["name"]]:
            raise _refusal(f"{path}.{field['name']}", "it lost its default, which older messages may need")
        _check(field["type"], kept[field["name"]]["type"], f"{path}.{field['name']}")
    for name, field in kept.items():
        if name not in known and "default" not in field:
            raise _refusal(f"{path}.{name}", "it was added without a default, which older messages need")


def _check_symbols(old: Avro, new: Avro, path: str) -> None:
    if gone := [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]:
        raise _refusal(path, f"it lost the symbols {', '.join(gone)}")
    added = [symbol for symbol in new["symbols"] if symbol not in old["symbols"]]
    if added and old["default"] is None:
        raise _refusal(path, f"it gained the symbols {', '.join(added)}, and older readers have no default for them")


def _names(avro: Avro) -> tuple[object, ...]:
    """What makes two types of one kind different types."""
    return (avro.get("fullname"), avro.get("logicalType"), avro.get("size"))


def _refusal(path: str, what: str) -> IncompatibleSchema:
    return IncompatibleSchema(f"{path}: {what}; a breaking change needs a new topic")
