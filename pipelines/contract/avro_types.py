"""Avro schemas with their references followed: the shape of `avro_schema.expand`, in which a type may contain itself.

`expand` is for decoding, where every type is spelled out; here one definition is one object, however often it is
named, so that recursive schemas can be compared.
"""

from typing import Any

from pipelines.contract.avro_schema import Avro
from pipelines.errors import IncompatibleSchema

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def link(schema: Any) -> Avro:
    """Link a parsed Avro schema; raises `IncompatibleSchema` for what is not Avro or nested too deeply to be read."""
    try:
        return _Linker().link(schema, "")
    except RecursionError:
        raise IncompatibleSchema("an Avro schema nested more deeply than Python can follow; flatten it") from None


class _Linker:
    def __init__(self) -> None:
        self._named: dict[str, Avro] = {}

    def link(self, schema: Any, namespace: str) -> Avro:
        match schema:
            case list():
                return {"type": "union", "branches": [self.link(branch, namespace) for branch in schema]}
            case str() if schema in _PRIMITIVES:
                return {"type": schema}
            case str():
                return self._reference(schema, namespace)
            case {"type": "record" | "error", "name": str(), "fields": list()}:
                return self._record(schema, namespace)
            case {"type": "enum", "name": str(), "symbols": list(symbols)}:
                enum = {"symbols": symbols, "default": schema.get("default")}
                return self._named_type("enum", schema, namespace, enum)
            case {"type": "fixed", "name": str(), "size": int(size)}:
                return self._named_type("fixed", schema, namespace, {"size": size})
            case {"type": "array", "items": items}:
                return {"type": "array", "items": self.link(items, namespace)}
            case {"type": "map", "values": values}:
                return {"type": "map", "values": self.link(values, namespace)}
            case {"type": str(kind)} if kind in _PRIMITIVES:
                return {"type": kind, "logicalType": schema.get("logicalType")}
            case {"type": list() | dict() | str() as inner} if inner not in ("record", "error", "enum", "fixed"):
                return self.link(inner, namespace)
        raise IncompatibleSchema(f"not an Avro type: {schema!r:.200}")

    def _record(self, schema: Any, namespace: str) -> Avro:
        fields: list[Any] = []
        record = self._named_type("record", schema, namespace, {"fields": fields})
        within = record["fullname"].rpartition(".")[0]
        for field in schema["fields"]:
            if not isinstance(field, dict) or "name" not in field or "type" not in field:
                raise IncompatibleSchema(f"{record['fullname']}: not a field with name and type: {field!r:.200}")
            fields.append({**field, "type": self.link(field["type"], within)})
        return record

    def _named_type(self, kind: str, schema: Any, namespace: str, of_kind: Avro) -> Avro:
        fullname = _fullname(schema["name"], schema.get("namespace", namespace))
        if fullname in self._named:
            raise IncompatibleSchema(f"the Avro schema defines {fullname} twice")
        aliases = [_fullname(alias, fullname.rpartition(".")[0]) for alias in schema.get("aliases", ())]
        avro = {"type": kind, "fullname": fullname, "aliases": aliases, **of_kind}
        self._named[fullname] = avro
        return avro

    def _reference(self, name: str, namespace: str) -> Avro:
        fullname = _fullname(name, namespace)
        if fullname not in self._named:
            raise IncompatibleSchema(f"the Avro schema refers to {fullname}, which it does not define before")
        return self._named[fullname]


def _fullname(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
