"""Avro schemas in one uniform shape: references spelled out, every type an object, unions named as such."""

from typing import Any, TypeAlias

from pipelines.errors import IncompatibleSchema

Avro: TypeAlias = dict[str, Any]
"""An expanded type: `{"type": ...}`; a union is `{"type": "union", "branches": [...]}`, a named type has `fullname`."""

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_MAX_TYPES = 10_000


def expand(schema: Any) -> Avro:
    """Expand a parsed Avro schema.

    Raises `IncompatibleSchema` for what is not Avro, for types that contain themselves, for lists whose items take no
    byte (a few bytes could then claim any number of items), and for more than 10,000 types.
    """
    return _Expansion().expand(schema, "")


def name_of(avro: Avro) -> str:
    """A short name for messages: the full name of a named type, else its kind."""
    if avro["type"] == "union":
        return " or ".join(name_of(branch) for branch in avro["branches"])
    return str(avro.get("fullname") or avro.get("logicalType") or avro["type"])


def is_zero_length(avro: Avro) -> bool:
    """Whether a value of the type may take no byte at all."""
    match avro["type"]:
        case "null":
            return True
        case "fixed":
            return bool(avro["size"] == 0)
        case "record":
            return all(is_zero_length(field["type"]) for field in avro["fields"])
    return False


class _Expansion:
    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: set[str] = set()
        self._types = 0

    def expand(self, schema: Any, namespace: str) -> Avro:
        self._types += 1
        if self._types > _MAX_TYPES:
            raise IncompatibleSchema(f"an Avro schema of more than {_MAX_TYPES} types; flatten it")
        if isinstance(schema, list):
            return {"type": "union", "branches": [self.expand(branch, namespace) for branch in schema]}
        if isinstance(schema, str):
            return {"type": schema} if schema in _PRIMITIVES else self._reference(schema, namespace)
        if not isinstance(schema, dict) or "type" not in schema:
            raise IncompatibleSchema(f"not an Avro type: {schema!r:.200}")
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self.expand(kind, namespace)
        if kind in ("record", "error", "enum", "fixed"):
            return self._named_type(schema, namespace)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            item = self.expand(schema[key], namespace)
            if kind == "array" and is_zero_length(item):
                raise IncompatibleSchema(f"a list of {name_of(item)} takes no bytes for its items; name a real type")
            return {"type": kind, key: item}
        if kind in _PRIMITIVES:
            return {"type": kind, "logicalType": schema.get("logicalType")}
        return self._reference(kind, namespace)

    def _reference(self, name: str, namespace: str) -> Avro:
        fullname = name if "." in name or not namespace else f"{namespace}.{name}"
        if fullname in self._open:
            raise IncompatibleSchema(f"the Avro type {fullname} contains itself, which an event cannot")
        if fullname not in self._named:
            raise IncompatibleSchema(f"the Avro schema refers to {fullname}, which it does not define before")
        return self._named_type(*self._named[fullname])

    def _named_type(self, schema: Any, namespace: str) -> Avro:
        name = schema["name"]
        namespace = name.rpartition(".")[0] or schema.get("namespace", namespace)
        fullname = f"{namespace}.{name.rpartition('.')[2]}".lstrip(".")
        self._named[fullname] = (schema, namespace)
        if schema["type"] == "enum":
            return {
                "type": "enum",
                "fullname": fullname,
                "symbols": schema["symbols"],
                "default": schema.get("default"),
            }
        if schema["type"] == "fixed":
            return {"type": "fixed", "fullname": fullname, "size": schema["size"]}
        self._open.add(fullname)
        fields = [{**field, "type": self.expand(field["type"], namespace)} for field in schema["fields"]]
        self._open.remove(fullname)
        return {"type": "record", "fullname": fullname, "fields": fields}
