"""What may change in a schema, each answer checked by reading messages across the change with fastavro."""

import copy
import io
from collections.abc import Callable
from typing import Any

import fastavro
import pytest

from pipelines.contract.evolution import check_evolution
from pipelines.errors import IncompatibleSchema

Schema = dict[str, Any]
OLD: Schema = {
    "type": "record",
    "name": "Event",
    "namespace": "n",
    "fields": [
        {"name": "id", "type": "string"},
        {
            "name": "place",
            "type": ["null", {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "int"}]}],
        },
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"], "default": "A"}},
        {"name": "fixed_kind", "type": {"type": "enum", "name": "FixedKind", "symbols": ["A", "B"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    ],
}
ROW = {"id": "1", "place": {"x": 1}, "kind": "B", "fixed_kind": "B", "tags": ["t"]}


def add(**field: Any) -> Callable[[Schema], None]:
    return lambda schema: schema["fields"].append(field)


def of(index: int, **changed: Any) -> Callable[[Schema], None]:
    return lambda schema: schema["fields"][index].update(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: None,
        lambda schema: schema.update(doc="said better"),
        add(name="more", type=["null", "string"], default=None),
        lambda schema: schema["fields"].insert(0, {"name": "more", "type": "long", "default": 0}),
        lambda schema: schema["fields"].reverse(),
        lambda schema: schema["fields"][1]["type"][1]["fields"].append({"name": "y", "type": "int", "default": 0}),
        lambda schema: schema["fields"][2]["type"]["symbols"].append("C"),
    ],
)
def test_allowed_changes_are_readable_both_ways(change: Callable[[Schema], None]) -> None:
    new = copy.deepcopy(OLD)
    change(new)
    check_evolution(OLD, new)
    more = {"more": 5} if any(f["name"] == "more" and f["type"] == "long" for f in new["fields"]) else {"more": None}
    new_row = {**copy.deepcopy(ROW), **more, "place": {"x": 1, "y": 2}}
    assert read(new, new_row, OLD) == ROW
    assert {**read(OLD, ROW, new)}["id"] == "1"


def read(writer: Schema, row: Schema, reader: Schema) -> Any:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(copy.deepcopy(writer)), row)
    buffer.seek(0)
    return fastavro.schemaless_reader(
        buffer, fastavro.parse_schema(copy.deepcopy(writer)), fastavro.parse_schema(copy.deepcopy(reader))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add(name="more", type="long"), "n.Event.more: it was added without a default"),
        (lambda schema: schema["fields"].pop(0), "n.Event.id: it was removed or renamed"),
        (of(0, name="identity"), "n.Event.id: it was removed or renamed"),
        (of(0, type=["null", "string"]), "n.Event.id: its type changed from string to null or string"),
        (of(0, type="bytes"), "n.Event.id: its type changed from string to bytes"),
        (of(1, type=["null", "string"]), "n.Event.place: its type changed from n.Place to string"),
        (
            lambda schema: schema["fields"][1]["type"][1]["fields"][0].update(type="long"),
            "n.Event.place.x: its type changed from int to long",
        ),
        (lambda schema: schema["fields"][2]["type"]["symbols"].remove("A"), "n.Event.kind: it lost the symbols A"),
        (
            lambda schema: schema["fields"][3]["type"]["symbols"].append("C"),
            "n.Event.fixed_kind: it gained the symbols C",
        ),
        (lambda schema: schema["fields"][4].pop("default"), "n.Event.tags: it lost its default"),
        (of(4, type={"type": "array", "items": "int"}), r"n.Event.tags\[\]: its type changed from string to int"),
        (lambda schema: schema.update(name="Other"), "its type changed from n.Event to n.Other"),
    ],
)
def test_breaking_changes_are_refused(change: Callable[[Schema], None], message: str) -> None:
    new = copy.deepcopy(OLD)
    change(new)
    with pytest.raises(IncompatibleSchema, match=message):
        check_evolution(OLD, new)
