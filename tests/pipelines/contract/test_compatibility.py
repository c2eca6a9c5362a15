"""Schema resolution beside apache/avro's published pairs, and beside what fastavro can read."""

import copy
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.read import SchemaResolutionError

from pipelines.contract.avro_types import link
from pipelines.contract.compatibility import Break, Rule, resolution_breaks
from pipelines.errors import IncompatibleSchema
from tests.pipelines.contract.schema_pairs import data_of, schema_pair

SEEDS = range(1500)


def breaks(reader: Any, writer: Any) -> list[Break]:
    return resolution_breaks(link(reader), link(writer))


@pytest.mark.realdata
def test_verdicts_and_reasons_are_those_that_apache_avro_publishes(shared_data: Path) -> None:
    cases = json.loads((shared_data / "avro" / "compatibility_vectors.json").read_text())["cases"]
    assert len(cases) == 137
    for case in cases:
        found = breaks(case["reader"], case["writer"])
        assert (not found) is case["compatible"], case
        # The published tests are named after the reason, but for a few of mixed ones.
        reason = case["test"].removeprefix("test_schema_compatibility").removeprefix("_")
        if found and reason:
            assert {each.rule for each in found} == {Rule(reason)}, case


def test_what_is_called_readable_fastavro_reads_and_the_rest_it_does_not() -> None:
    verdicts: Counter[bool] = Counter()
    rules: Counter[Rule] = Counter()
    for seed in SEEDS:
        writer, reader = schema_pair(seed)
        found = breaks(reader, writer)
        assert fastavro_reads(writer, reader) is (not found), (seed, found)
        verdicts[not found] += 1
        rules.update(each.rule for each in found)
    assert min(verdicts.values()) > len(SEEDS) / 5
    assert set(rules) == set(list(Rule)[:6]), "every one of Avro's reasons occurs"


def fastavro_reads(writer: Any, reader: Any) -> bool:
    """Whether fastavro reads data in which every branch and symbol of the writer occurs."""
    written, wanted = (fastavro.parse_schema(copy.deepcopy(schema)) for schema in (writer, reader))
    for datum in data_of(writer):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, written, datum)
        buffer.seek(0)
        try:
            fastavro.schemaless_reader(buffer, written, wanted)
        except SchemaResolutionError:
            return False
    return True


def chain(value: Any, **more: Any) -> Any:
    """A type that contains itself, through a union, a list and a map."""
    links = [
        {"name": "next", "type": ["null", "Chain"]},
        {"name": "list", "type": {"type": "array", "items": "Chain"}},
        {"name": "map", "type": {"type": "map", "values": {"type": "Chain"}}},
    ]
    return {"type": "record", "name": "Chain", "fields": [*links, {"name": "value", "type": value, **more}]}


def test_types_that_contain_themselves_come_to_an_end() -> None:
    assert breaks(chain("long"), chain("int")) == []
    assert breaks(chain("int"), chain("long")) == [
        Break("Chain.value", Rule.TYPE_MISMATCH, "long cannot be read as int")
    ]
    other = chain("int")
    other["fields"].append({"name": "mirror", "type": {**chain("int"), "name": "Mirror"}})
    other["fields"][-1]["type"]["fields"][0]["type"][1] = "Mirror"
    assert [each.path for each in breaks(other, chain("int"))] == ["Chain.mirror"]
    assert breaks(chain("int"), other) == []


def test_a_break_within_a_union_names_the_field_of_the_branch_that_was_meant() -> None:
    def place(*fields: Any) -> Any:
        union = ["null", {"type": "record", "name": "Place", "fields": list(fields)}]
        return {
            "type": "record",
            "name": "n.Event",
            "fields": [{"name": "places", "type": {"type": "map", "values": union}}],
        }

    x, y = {"name": "x", "type": "int"}, {"name": "y", "type": "int"}
    (found,) = breaks(place(x, y), place(x))
    assert (found.path, found.rule) == ("n.Event.places{}.y", Rule.READER_FIELD_MISSING_DEFAULT_VALUE)


@pytest.mark.parametrize(
    ("reader_name", "aliases", "writer_name", "match"),
    [
        ("a.Old", [], "b.Old", True),
        ("a.New", ["Old"], "a.Old", True),
        ("a.New", ["b.Old"], "b.Old", True),
        ("a.New", ["Old"], "b.Old", False),
        ("a.New", ["Old"], "Old", False),
    ],
)
def test_names_match_without_namespaces_and_aliases_with_them(
    reader_name: str, aliases: list[str], writer_name: str, match: bool
) -> None:
    reader = {"type": "fixed", "name": reader_name, "size": 1, "aliases": aliases}
    assert (breaks(reader, {"type": "fixed", "name": writer_name, "size": 1}) == []) is match


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (None, "not an Avro type: None"),
        ({}, "not an Avro type: {}"),
        ({"type": 5}, "not an Avro type: {'type': 5}"),
        ({"type": "record", "name": "R"}, "not an Avro type: {'type': 'record', 'name': 'R'}"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "x"}]},
            "R: not a field with name and type: {'name': 'x'}",
        ),
        ({"type": "array", "items": "Lost"}, "the Avro schema refers to Lost, which it does not define before"),
        ("strnig", "the Avro schema refers to strnig, which it does not define before"),
        ([{"type": "fixed", "name": "F", "size": 1}] * 2, "the Avro schema defines F twice"),
    ],
)
def test_what_is_no_schema_is_named(schema: Any, message: str) -> None:
    with pytest.raises(IncompatibleSchema) as failure:
        link(schema)
    assert str(failure.value) == message


def test_a_schema_too_deep_to_follow_is_named() -> None:
    deep: Any = "int"
    for _ in range(5_000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(IncompatibleSchema, match="nested more deeply than Python can follow"):
        link(deep)
