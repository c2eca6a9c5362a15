"""Pairs of Avro schemas that differ as schemas do in life, made from a seed, and data that take every turn of one."""

import copy
import random
from typing import Any

Schema = Any
_NUMBERS = {"int": 7, "long": 7, "float": 0.5, "double": 0.5}
_VALUES: dict[str, Any] = {"null": None, "boolean": True, **_NUMBERS, "bytes": b"b", "string": "s"}
_DEFAULTS = {
    "null": None,
    "boolean": False,
    "int": 0,
    "long": 0,
    "float": 0.5,
    "double": 0.5,
    "bytes": "",
    "string": "",
}


def schema_pair(seed: int) -> tuple[Schema, Schema]:
    """A writer's schema and one that came from it by a few changes, good and bad.

    Records change their names or their namespaces, as the seed says, but not both: there fastavro takes an alias of
    another namespace, which apache/avro does not.
    """
    chance = random.Random(seed)
    writer = _Maker(chance).record(depth=2)
    reader = copy.deepcopy(writer)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        _change(chance, reader, "rename" if seed % 2 else "namespace")
    return writer, reader


def data_of(schema: Schema) -> list[Any]:
    """Data that `schema` can write, in which every branch of its unions and every symbol of its enums occurs."""
    match schema:
        case str():
            return [_VALUES[schema]]
        case list():
            return [(_name(branch), datum) for branch in schema for datum in data_of(branch)]
        case {"type": "enum", "symbols": symbols}:
            return list(symbols)
        case {"type": "fixed", "size": size}:
            return [b"x" * size]
        case {"type": "array", "items": items}:
            return [[datum] for datum in data_of(items)]
        case {"type": "map", "values": values}:
            return [{"key": datum} for datum in data_of(values)]
    of_fields = {field["name"]: data_of(field["type"]) for field in schema["fields"]}
    plain = {name: data[0] for name, data in of_fields.items()}
    return [plain, *({**plain, name: datum} for name, data in of_fields.items() for datum in data[1:])]


def _name(branch: Schema) -> str:
    return branch if isinstance(branch, str) else branch.get("name", branch["type"])


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._named = 0

    def record(self, depth: int) -> Schema:
        name = self._next("Record")
        fields = [{"name": letter, "type": self.type(depth)} for letter in "abcd"[: self._chance.randint(1, 4)]]
        return {"type": "record", "name": name, "fields": fields}

    def type(self, depth: int, *, in_union: bool = False) -> Schema:
        kinds = ["primitive", "primitive", "enum", "fixed"]
        kinds += ["record", "array", "map"] if depth else []
        kinds += ["union", "union"] if not in_union else []
        match self._chance.choice(kinds):
            case "enum":
                symbols = ["A", "B", "C"][: self._chance.randint(1, 3)]
                default = {"default": self._chance.choice(symbols)} if self._chance.random() < 0.5 else {}
                return {"type": "enum", "name": self._next("Enum"), "symbols": symbols, **default}
            case "fixed":
                return {"type": "fixed", "name": self._next("Fixed"), "size": self._chance.choice([2, 4])}
            case "record":
                return self.record(depth - 1)
            case "array":
                return {"type": "array", "items": self.type(depth - 1)}
            case "map":
                return {"type": "map", "values": self.type(depth - 1)}
            case "union":
                made = [self.type(depth, in_union=True) for _ in range(self._chance.randint(1, 3))]
                # At most one of each unnamed type may stand in a union.
                return list({_name(branch): branch for branch in made}.values())
        return self._chance.choice(sorted(_VALUES))

    def _next(self, kind: str) -> str:
        self._named += 1
        return f"{kind}{self._named}"


def _change(chance: random.Random, schema: Schema, of_names: str) -> None:
    """Change one place of `schema`, somewhere."""
    holder, key = chance.choice(_places(schema))
    avro = holder[key]
    match avro:
        case {"type": "record", "fields": fields}:
            _change_record(chance, avro, fields, of_names)
        case {"type": "enum"}:
            match chance.choice(["symbols", "default", "name"]):
                case "symbols":
                    avro["symbols"] = chance.choice([["A"], ["A", "B"], ["C", "A", "B"]])
                    avro.pop("default", None)
                case "default":
                    avro["default"] = avro["symbols"][0]
                case "name":
                    avro["name"] += "Renamed"
        case {"type": "fixed"}:
            avro["size"] = chance.choice([2, 4, 8])
        case list():
            chance.shuffle(avro)
            if chance.random() < 0.5 and len(avro) > 1:
                avro.pop()
            elif "null" not in avro:
                avro.append("null")
        case str():
            wider = {"int": "long", "long": "double", "float": "double", "string": "bytes", "bytes": "string"}
            holder[key] = chance.choice(
                [wider.get(avro, avro), wider.get(avro, avro), "int", [avro], ["string", "double"]]
            )
            holder.pop("default", None)  # which may not fit any more


def _change_record(chance: random.Random, record: Schema, fields: list[Any], of_names: str) -> None:
    match chance.choice(["drop", "add", "add", "alias", "reorder", of_names]):
        case "drop" if len(fields) > 1:
            fields.pop(chance.randrange(len(fields)))
        case "add":
            kind = chance.choice(sorted(_DEFAULTS))
            default = {"default": _DEFAULTS[kind]} if chance.random() < 0.6 else {}
            fields.append({"name": f"added{len(fields)}", "type": kind, **default})
        case "rename":
            record["name"] += "Renamed"
            if chance.random() < 0.5:
                record["aliases"] = [record["name"].removesuffix("Renamed")]
        case "alias":
            field = chance.choice(fields)
            field["aliases"] = [field["name"]]
            field["name"] += "_renamed"
        case "reorder":
            chance.shuffle(fields)
        case "namespace":
            record["namespace"] = "elsewhere"


def _places(schema: Schema) -> list[tuple[Any, Any]]:
    """Every place of a type within `schema`, as the container and the key under which it stands."""
    holders: list[tuple[Any, Any]] = [({"type": schema}, "type")]
    places = []
    while holders:
        holder, key = holders.pop()
        places.append((holder, key))
        match holder[key]:
            case list() as branches:
                holders += [(branches, index) for index in range(len(branches)) if not isinstance(branches[index], str)]
            case {"type": "record", "fields": fields}:
                holders += [(field, "type") for field in fields]
            case {"type": "array"} as array:
                holders.append((array, "items"))
            case {"type": "map"} as map_:
                holders.append((map_, "values"))
    return places
