"""What may change in a schema, each answer checked by reading messages across the change with fastavro."""

import copy
import io
from collections.abc import Callable
from typing import Any

import fastavro
import pytest

from pipelines.contract.evolution import Mode, check_evolution, check_history, evolution_breaks
from pipelines.errors import IncompatibleSchema
from tests.pipelines.contract.schema_pairs import schema_pair

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


def test_every_break_is_told_not_the_first_alone() -> None:
    new = copy.deepcopy(OLD)
    new["fields"] = [*new["fields"][1:], {"name": "more", "type": "long"}]
    assert [(each.path, each.rule) for each in evolution_breaks(Mode.REEL, new, [OLD])] == [
        ("n.Event.id", "field_removed"),
        ("n.Event.more", "field_added_without_default"),
    ]
    with pytest.raises(IncompatibleSchema, match=r"n\.Event\.id: .*; n\.Event\.more: .* needs a new topic"):
        check_evolution(OLD, new)


def test_what_reel_allows_every_mode_of_confluent_allows() -> None:
    allowed = 0
    for seed in range(1500):
        old, new = schema_pair(seed)
        if not evolution_breaks(Mode.REEL, new, [old]):
            allowed += old != new
            assert not any(evolution_breaks(mode, new, [old]) for mode in Mode), seed
    assert allowed > 50


def record(*fields: str) -> Schema:
    """Fields like `x:int`, or with a default `x:int=0`."""
    made = []
    for field in fields:
        name, _, rest = field.partition(":")
        kind, _, default = rest.partition("=")
        made.append({"name": name, "type": kind, **({"default": int(default)} if default else {})})
    return {"type": "record", "name": "R", "fields": made}


# By the definitions of Confluent's documentation: the new schema reads the old data (backward), the old the new's
# (forward), of the version before or of all; and by Reel's rule. `v1, v2 -> v3`, and the modes that refuse v3.
EVERY = {*Mode} - {Mode.NONE}
BACKWARD = {Mode.BACKWARD, Mode.BACKWARD_TRANSITIVE, Mode.FULL, Mode.FULL_TRANSITIVE}
FORWARD = {Mode.FORWARD, Mode.FORWARD_TRANSITIVE, Mode.FULL, Mode.FULL_TRANSITIVE}


@pytest.mark.parametrize(
    ("versions", "refusing"),
    [
        ([record("x:int"), record("x:int"), record("x:int", "y:int=0")], set()),
        ([record("x:int"), record("x:int"), record("x:int", "y:int")], BACKWARD | {Mode.REEL}),
        ([record("x:int"), record("x:int", "y:int"), record("x:int")], FORWARD | {Mode.REEL}),
        ([record("x:int"), record("x:int", "y:int=0"), record("x:int")], {Mode.REEL}),
        ([record("x:int"), record("x:int"), record("x:string")], EVERY),
        ([record("x:int"), record("x:int"), record("x:long")], FORWARD | {Mode.REEL}),
        ([record("x:long"), record("x:long"), record("x:int")], BACKWARD | {Mode.REEL}),
        # v2 to v3 is well; v1 to v3 is what only the transitive modes see.
        (
            [record("x:int"), record("x:int", "y:int=0"), record("x:int", "y:int")],
            {Mode.BACKWARD_TRANSITIVE, Mode.FULL_TRANSITIVE, Mode.REEL},
        ),
        (
            [record("x:int", "y:int"), record("x:int", "y:int=0"), record("x:int")],
            {*FORWARD, Mode.REEL} - {Mode.FORWARD, Mode.FULL},
        ),
        ([], set()),
    ],
)
def test_each_mode_refuses_what_its_definition_says(versions: list[Schema], refusing: set[Mode]) -> None:
    *earlier, new = versions or [record("x:int")]
    assert {mode for mode in Mode if evolution_breaks(mode, new, earlier)} == refusing


def test_a_default_that_an_enum_got_later_does_not_help_its_first_readers() -> None:
    def kind(**enum: Any) -> Schema:
        return {"type": "record", "name": "R", "fields": [{"name": "k", "type": {"type": "enum", "name": "K", **enum}}]}

    first, second = kind(symbols=["A"]), kind(symbols=["A"], default="A")
    third = kind(symbols=["A", "B"], default="A")
    check_evolution(first, second)
    check_evolution(second, third)
    with pytest.raises(IncompatibleSchema, match=r"R\.k: it gained the symbols B, and older readers have no default"):
        check_history([first, second], third)


def test_a_type_that_contains_itself_is_compared_once() -> None:
    def node(*more: Any) -> Schema:
        return {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}, *more]}

    check_evolution(node(), node({"name": "x", "type": "int", "default": 0}))
    with pytest.raises(IncompatibleSchema, match=r"^Node\.x: it was removed or renamed; a breaking change"):
        check_evolution(node({"name": "x", "type": "int", "default": 0}), node())
