"""The event contract: what every event is called, which topic carries it, and what its columns are.

input:  the Avro schemas in `configs/schemas/{domain}/{EventName}.avsc`, which refer to shared types by full name
does:   resolves the references, checks that the schemas agree with each other, derives flat Arrow schemas
output: a `Contract` of `EventSchema`s, which every other station reads instead of the files
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.errors import ContractError

Json = dict[str, Any]
AvroType = str | Json | list[Any]
Found = TypeVar("Found")

NAMESPACE = "com.platform.events"
SHARED_DOMAIN = "common"
TIMESTAMP = pa.timestamp("ms", tz="UTC")

CONSENT_CATEGORIES = {
    "essential": "kept whatever the viewer consented to",
    "analytics": "kept with consent to analytics",
    "none": "concerns no person",
}
PERSONAL = {
    "identifier": "stored hashed",
    "address": "used for region and provider, stored cut short",
    "agent": "used to tell the device, never stored",
    "free_text": "personal data in it is replaced before it is stored",
}

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
_AVRO_PRIMITIVES = frozenset({*_PRIMITIVES, "null", "float", "bytes"})


@dataclass(frozen=True)
class Column:
    """One flat Arrow column and the Avro field behind it.

    `path` leads from the record to the field, as in `("envelope", "consent", "analytics")`; `nullable` holds if the
    field or a record around it may be null; `symbols` are the allowed values of an enum, else empty; `personal` says
    what of a person the field may hold, one of `PERSONAL`, and is None where it holds nothing of the kind.
    """

    name: str
    path: tuple[str, ...]
    arrow: pa.DataType
    nullable: bool
    doc: str
    symbols: tuple[str, ...] = ()
    personal: str | None = None


@dataclass(frozen=True, eq=False)
class EventSchema:
    """One event of the contract, known by the full name of its Avro record.

    Two events may share a `name` when they stand on different topics: what a client and what the backend say of the
    same thing. `owner` is the team that answers for the schema; `consent_category` one of `CONSENT_CATEGORIES`. `avro`
    is self-contained: every named type is spelled out where it is first used. `arrow` has the envelope's columns
    first, then the event's own, in the order of the schema file.
    """

    name: str
    fullname: str
    topic: str
    domain: str
    owner: str
    consent_category: str
    doc: str
    avro: Json
    columns: tuple[Column, ...]

    @cached_property
    def arrow(self) -> pa.Schema:
        """The flat Arrow schema: one field for each of `columns`."""
        return pa.schema([pa.field(c.name, c.arrow, nullable=c.nullable) for c in self.columns])

    @property
    def symbols(self) -> dict[str, tuple[str, ...]]:
        """The allowed values of each enum column, by column name."""
        return {column.name: column.symbols for column in self.columns if column.symbols}

    @property
    def subject(self) -> str:
        """The registry's subject of this event (Confluent's TopicRecordNameStrategy)."""
        return f"{self.topic}-{self.fullname}"

    @cached_property
    def avro_json(self) -> str:
        """The text under which the schema is registered; the same schema always gives the same text."""
        return json.dumps(self.avro, separators=(",", ":"))


@dataclass(frozen=True, eq=False)
class Contract:
    """All events, by name; made by `load_contract`."""

    events: tuple[EventSchema, ...]

    @cached_property
    def _by_name(self) -> dict[str, list[EventSchema]]:
        named: dict[str, list[EventSchema]] = {}
        for event in self.events:
            named.setdefault(event.name, []).append(event)
        return named

    @cached_property
    def _by_fullname(self) -> dict[str, EventSchema]:
        return {event.fullname: event for event in self.events}

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """The Kafka topics of all events, sorted."""
        return tuple(sorted({event.topic for event in self.events}))

    def event(self, name: str, topic: str | None = None) -> EventSchema:
        """Return the event called `name`, such as `playback.started`, on `topic` when given.

        Raises `ContractError` if there is none, or there are several and no topic says which.
        """
        found = [event for event in _look_up(self._by_name, name, "event") if topic in (None, event.topic)]
        if len(found) != 1:
            topics = ", ".join(event.topic for event in self._by_name[name])
            raise ContractError(f"the event {name!r} is on {topics}, asked for on {topic or 'any'}; name one of these")
        return found[0]

    def by_fullname(self, fullname: str) -> EventSchema:
        """Return the event whose Avro record is `fullname`; raises `ContractError` if there is none."""
        return _look_up(self._by_fullname, fullname, "event with the Avro record")


def load_contract(folder: Path, *, strict: bool = True) -> Contract:
    """Load and check every schema under `folder` (`{domain}/{EventName}.avsc`).

    Raises `ContractError`, naming the file, if a file is no Avro schema of ours, refers to a type that is not there,
    lies elsewhere than its name says, has a field without a `doc`, repeats an `event_name` on a topic, or gives a
    property another type than another event does. With `strict` false, attributes that a schema of an earlier
    revision did not have yet may be missing.
    """
    paths = sorted(Path(folder).glob("*/*.avsc"))
    if not paths:
        raise ContractError(
            f"no event schemas in {folder}: expected {{domain}}/{{EventName}}.avsc; set the folder of configs/schemas"
        )
    files = {f"{NAMESPACE}.{path.parent.name}.{path.stem}": path for path in paths}
    named = {fullname: _read(path, fullname) for fullname, path in files.items()}
    events = tuple(
        _event(fullname, named, path, strict) for fullname, path in files.items() if path.parent.name != SHARED_DOMAIN
    )
    _check_unique_names(events, files)
    _check_same_types(events, files)
    return Contract(events)


def _look_up(known: Mapping[str, Found], key: str, what: str) -> Found:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`reel contract show` lists them"
        raise ContractError(f"no {what} {key!r} in the contract; {hint}")
    return known[key]


def _read(path: Path, fullname: str) -> Json:
    try:
        schema = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ContractError(f"{path}: not JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") not in ("record", "enum"):
        raise ContractError(f"{path}: expected an Avro record or enum, received {str(schema)[:80]}")
    declared = f"{schema.get('namespace')}.{schema.get('name')}"
    if declared != fullname:
        raise ContractError(f"{path}: declares {declared}, but its path says {fullname}; move or rename it")
    return schema


def _event(fullname: str, named: Mapping[str, Json], path: Path, strict: bool) -> EventSchema:
    schema = named[fullname]
    wanted = ["event_name", "topic", "doc", "fields", *(("owner", "consent_category") if strict else ())]
    missing = [key for key in wanted if key not in schema]
    if schema["type"] != "record" or missing:
        raise ContractError(f"{path}: an event is a record with {', '.join(wanted)}; lacks {', '.join(missing)}")
    category = schema.get("consent_category", "analytics")
    if category not in CONSENT_CATEGORIES:
        known = ", ".join(CONSENT_CATEGORIES)
        raise ContractError(f"{path}: consent_category is one of {known}; received {category!r}")
    avro = _resolve(schema, schema["namespace"], named, set(), path)
    assert isinstance(avro, dict)
    columns = _without_collisions(tuple(_columns(avro, (), False, path)), schema["event_name"])
    names = [column.name for column in columns]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ContractError(f"{path}: two fields flatten to the same column: {', '.join(sorted(repeated))}")
    return EventSchema(
        schema["event_name"],
        fullname,
        schema["topic"],
        path.parent.name,
        schema.get("owner", ""),
        category,
        schema["doc"],
        avro,
        columns,
    )


def _without_collisions(columns: tuple[Column, ...], event_name: str) -> tuple[Column, ...]:
    """A property that is called as a column of the envelope is led by the event's first word: `recording_source`."""
    enveloped = {column.name for column in columns if column.path[0] == "envelope"}
    stem = event_name.partition(".")[0]
    return tuple(
        replace(column, name=f"{stem}_{column.name}")
        if column.path[0] != "envelope" and column.name in enveloped
        else column
        for column in columns
    )


def _resolve(avro: AvroType, namespace: str, named: Mapping[str, Json], spelled_out: set[str], path: Path) -> AvroType:
    """Spell out each named type where it is first used; Avro wants its name alone afterwards."""
    if isinstance(avro, list):
        return [_resolve(branch, namespace, named, spelled_out, path) for branch in avro]
    if isinstance(avro, str):
        if avro in _AVRO_PRIMITIVES or avro in spelled_out:
            return avro
        if avro not in named:
            raise ContractError(f"{path}: type {avro!r} is neither Avro's nor a file under the schemas folder")
        return _resolve(named[avro], namespace, named, spelled_out, path)
    kind = avro["type"]
    if kind in ("record", "enum"):
        namespace = avro.get("namespace", namespace)
        fullname = f"{namespace}.{avro['name']}"
        if fullname in spelled_out:
            raise ContractError(f"{path}: {fullname} is defined twice; give one of the two another name")
        spelled_out.add(fullname)
        if not avro.get("doc"):
            raise ContractError(f"{path}: {avro['name']} has no doc; say what it is, with its allowed values")
    if kind == "record":
        fields = [
            {**field, "type": _resolve(field["type"], namespace, named, spelled_out, path)} for field in avro["fields"]
        ]
        return {**avro, "fields": fields}
    if kind == "array":
        return {**avro, "items": _resolve(avro["items"], namespace, named, spelled_out, path)}
    return avro


def _columns(record: Json, path: tuple[str, ...], nullable: bool, file: Path) -> Iterator[Column]:
    for field in record["fields"]:
        if not field.get("doc"):
            raise ContractError(f"{file}: field {field['name']!r} has no doc; say what it holds, with unit and range")
        yield from _field_columns(field, (*path, field["name"]), nullable, file)


def _field_columns(field: Json, path: tuple[str, ...], nullable: bool, file: Path) -> Iterator[Column]:
    avro = field["type"]
    if isinstance(avro, list):
        if len(avro) != 2 or avro[0] != "null" or field.get("default", "") is not None:
            raise ContractError(
                f'{file}: field {field["name"]!r} must be ["null", type] with default null, received {avro!r:.200}'
            )
        avro, nullable = avro[1], True
    if isinstance(avro, dict) and avro["type"] == "record":
        yield from _columns(avro, path, nullable, file)
        return
    # The envelope's own fields and an event's properties keep their names; deeper ones carry their record's.
    name = "_".join(path[1:] if path[0] == "envelope" else path)
    symbols = tuple(avro["symbols"]) if isinstance(avro, dict) and avro["type"] == "enum" else ()
    personal = field.get("personal")
    if personal is not None and personal not in PERSONAL:
        known = ", ".join(PERSONAL)
        raise ContractError(f"{file}: field {field['name']!r}: personal is one of {known}; received {personal!r}")
    yield Column(name, path, _arrow_type(avro, field["name"], file), nullable, field["doc"], symbols, personal)


def _arrow_type(avro: AvroType, field: str, file: Path) -> pa.DataType:
    match avro:
        case str() if avro in _PRIMITIVES:
            return _PRIMITIVES[avro]
        case {"type": "long", "logicalType": "timestamp-millis"}:
            return TIMESTAMP
        case {"type": "enum"}:
            return pa.string()
        case {"type": "array", "items": "string"}:
            return pa.list_(pa.string())
    known = ", ".join(_PRIMITIVES)
    raise ContractError(
        f"{file}: field {field!r} has the type {avro!r:.200}; a column is one of {known}, timestamp-millis, enum, "
        "array of string, or a record of these"
    )


def _check_unique_names(events: tuple[EventSchema, ...], files: Mapping[str, Path]) -> None:
    first: dict[tuple[str, str], EventSchema] = {}
    for event in events:
        known = first.setdefault((event.topic, event.name), event)
        if known is not event:
            raise ContractError(
                f"{files[event.fullname]}: event_name {event.name!r} of {event.topic} is already that of "
                f"{files[known.fullname]}"
            )


def _check_same_types(events: tuple[EventSchema, ...], files: Mapping[str, Path]) -> None:
    # One wide table holds them all. Which values an enum allows is each event's own matter: there it is text.
    first: dict[str, tuple[Column, EventSchema]] = {}
    for event in events:
        for column in event.columns:
            known, owner = first.setdefault(column.name, (column, event))
            if known.arrow != column.arrow:
                raise ContractError(
                    f"{files[event.fullname]}: {column.name!r} is {column.arrow}, but {known.arrow} in "
                    f"{files[owner.fullname]}; a property has one type in all events"
                )
