"""Whether a reader's Avro schema can read everything that a writer's may have written, decided without any data.

These are the rules of "Schema Resolution" in the Avro 1.11 specification, as apache/avro's `SchemaCompatibility`
decides them, which is what Confluent's and other registries ask: names match without their namespaces (aliases with
them), a union takes a type if any of its branches does, logical types do not matter. Neither fastavro, which resolves
only while it reads data, nor confluent_kafka, which asks a server, decides it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipelines.contract.avro_schema import Avro, name_of


class Rule(StrEnum):
    """What a change breaks: the first six are Avro's, the next Reel's own, the last the contract's as a whole."""

    TYPE_MISMATCH = "type_mismatch"
    NAME_MISMATCH = "name_mismatch"
    FIXED_SIZE_MISMATCH = "fixed_size_mismatch"
    MISSING_ENUM_SYMBOLS = "missing_enum_symbols"
    MISSING_UNION_BRANCH = "missing_union_branch"
    READER_FIELD_MISSING_DEFAULT_VALUE = "reader_field_missing_default_value"

    TYPE_CHANGED = "type_changed"
    FIELD_REMOVED = "field_removed"
    FIELD_ADDED_WITHOUT_DEFAULT = "field_added_without_default"
    DEFAULT_REMOVED = "default_removed"
    SYMBOLS_REMOVED = "symbols_removed"
    SYMBOLS_ADDED = "symbols_added"

    EVENT_REMOVED = "event_removed"
    EVENT_RENAMED = "event_renamed"
    TOPIC_MOVED = "topic_moved"
    UNREADABLE_SCHEMA = "unreadable_schema"


@dataclass(frozen=True)
class Break:
    """One thing that a change breaks: `path` leads from the record's full name to the field, `what` is for people."""

    path: str
    rule: Rule
    what: str


# Which written types a reader's primitive takes, besides its own.
_PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def resolution_breaks(reader: Avro, writer: Avro) -> list[Break]:
    """Everything that keeps `reader` from reading what `writer` wrote (schemas linked by `avro_types.link`)."""
    return list(_Resolution().breaks(reader, writer, name_of(reader)))


class _Resolution:
    def __init__(self) -> None:
        # Pairs of records under comparison. One met again within itself holds if the outer one does.
        self._open: set[tuple[int, int]] = set()

    def breaks(self, reader: Avro, writer: Avro, path: str) -> Iterator[Break]:
        if writer["type"] == "union":
            for branch in writer["branches"]:
                yield from self.breaks(reader, branch, path)
        elif reader["type"] == "union":
            yield from self._union(reader, writer, path)
        elif reader["type"] == writer["type"]:
            yield from self._same_kind(reader, writer, path)
        elif writer["type"] not in _PROMOTIONS.get(reader["type"], ()):
            yield Break(path, Rule.TYPE_MISMATCH, f"{name_of(writer)} cannot be read as {name_of(reader)}")

    def _union(self, reader: Avro, writer: Avro, path: str) -> Iterator[Break]:
        tried = [(branch, list(self.breaks(branch, writer, path))) for branch in reader["branches"]]
        if any(not found for _, found in tried):
            return
        for branch, found in tried:  # the branch that was meant tells best what is wrong
            if "fullname" in writer and branch["type"] == writer["type"] and _same_name(branch, writer):
                yield from found
                return
        yield Break(
            path, Rule.MISSING_UNION_BRANCH, f"{name_of(reader) or 'an empty union'} takes no {name_of(writer)}"
        )

    def _same_kind(self, reader: Avro, writer: Avro, path: str) -> Iterator[Break]:
        if "fullname" in reader and not _same_name(reader, writer):
            yield Break(path, Rule.NAME_MISMATCH, f"{name_of(writer)} is not called {name_of(reader)}")
            return
        match reader["type"]:
            case "record":
                yield from self._record(reader, writer, path)
            case "enum":
                unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                if unknown and reader["default"] is None:
                    what = f"readers do not know {', '.join(unknown)} and have no default for what they do not know"
                    yield Break(path, Rule.MISSING_ENUM_SYMBOLS, what)
            case "fixed" if reader["size"] != writer["size"]:
                what = f"{writer['size']} bytes cannot be read as {reader['size']}"
                yield Break(path, Rule.FIXED_SIZE_MISMATCH, what)
            case "array":
                yield from self.breaks(reader["items"], writer["items"], f"{path}[]")
            case "map":
                yield from self.breaks(reader["values"], writer["values"], f"{path}{{}}")

    def _record(self, reader: Avro, writer: Avro, path: str) -> Iterator[Break]:
        pair = (id(reader), id(writer))
        if pair in self._open:
            return
        self._open.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            within = f"{path}.{field['name']}"
            called = next((name for name in (field["name"], *field.get("aliases", ())) if name in written), None)
            if called is not None:
                yield from self.breaks(field["type"], written[called]["type"], within)
            elif "default" not in field:
                what = "messages without it cannot be read, for it has no default"
                yield Break(within, Rule.READER_FIELD_MISSING_DEFAULT_VALUE, what)
        self._open.remove(pair)


def _same_name(reader: Avro, writer: Avro) -> bool:
    is_alias = writer["fullname"] in reader["aliases"]  # the one name that counts with its namespace
    return is_alias or _unqualified(writer["fullname"]) == _unqualified(reader["fullname"])


def _unqualified(name: str) -> str:
    return name.rpartition(".")[2]
