"""Reading a tree of settings from YAML and the environment: every key known, one clear line for whatever is wrong.

A tree is a pydantic model whose fields are values, models (its sections), or mappings of names to models. What may hold
a password is a field with `repr=False`: its value is never part of a message.
"""

import difflib
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipelines.errors import UsageError

PREFIX = "REEL_"
Tree = TypeVar("Tree", bound=BaseModel)


class SettingsError(UsageError):
    """A setting is wrong; the message names the key, what was received and what is allowed."""


def read_tree(model: type[Tree], path: Path, environ: Mapping[str, str], other_variables: Collection[str]) -> Tree:
    """The tree that `path` and `environ` spell; `other_variables` have the prefix of settings and are none.

    Raises SettingsError naming the key at fault: an unknown one with its nearest known neighbour, a wrong value with
    what was received.
    """
    tree = _with_known_keys(model, _read_yaml(path), source=str(path))
    _apply_environment(model, tree, environ, other_variables)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_explained(model, path, error.errors()[0])) from None


class _EachKeyOnce(yaml.SafeLoader):
    """YAML, of which a mapping that says a key twice is refused: of the two, one would silently count for nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As YAML has it. Raises ConstructorError for a key that stands there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice; bring the two together", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(), Loader=_EachKeyOnce)
    except FileNotFoundError:
        raise SettingsError(f"no configuration file at {path}; name one with --config or REEL_CONFIG") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = str(error).replace("\n", " ")
        raise SettingsError(f"{path} is not valid YAML: {where}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must hold a mapping of settings; received a {type(tree).__name__}")
    return tree


def _with_known_keys(model: type[BaseModel], tree: Mapping[Any, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """The tree, all of whose keys are known; a section with nothing below its name is an empty one."""
    known: dict[str, Any] = {}
    for key, value in tree.items():
        field = model.model_fields.get(str(key))
        if field is None:
            raise SettingsError(
                f"{source}: unknown key '{prefix}{key}'{_nearest(str(key), model.model_fields, prefix)}; "
                f"known here: {', '.join(model.model_fields)}"
            )
        known[str(key)] = _known_value(field, value, source, f"{prefix}{key}.")
    return known


def _known_value(field: FieldInfo, value: Any, source: str, prefix: str) -> Any:
    section, named = _section(field), _named_sections(field)
    if section is not None and (value is None or isinstance(value, Mapping)):
        return _with_known_keys(section, value or {}, source, prefix)
    if named is not None and isinstance(value, Mapping):
        return {
            str(name): _with_known_keys(named, one or {}, source, f"{prefix}{name}.")
            if one is None or isinstance(one, Mapping)
            else one
            for name, one in value.items()
        }
    return value


def _apply_environment(
    model: type[BaseModel], tree: dict[str, Any], environ: Mapping[str, str], other_variables: Collection[str]
) -> None:
    fields = {_variable(key): (key, field) for key, field in _leaves(model).items()}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in other_variables:
            continue
        if name not in fields:
            nearest = _nearest(name, [*fields, *other_variables])
            raise SettingsError(f"unknown environment variable {name}{nearest}; unset it or mend its name")
        (*sections, leaf), field = fields[name]
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        if isinstance(node, dict):  # else the file has something else there, which is refused with the rest
            node[leaf] = _known_value(field, _parsed(name, text, field), name, "")


def _parsed(name: str, text: str, field: FieldInfo) -> Any:
    """A variable's text as a value: null where that is allowed, YAML for lists and mappings, else left as it is."""
    kinds = {typing.get_origin(part) or part for part in (field.annotation, *typing.get_args(field.annotation))}
    if text == "null" and types.NoneType in kinds:
        return None
    if not kinds & {dict, tuple}:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(
            f"{name} is not valid YAML; write a list as [a, b] and a mapping as {{key: value}}"
        ) from None


def _explained(model: type[BaseModel], path: Path, error: ErrorDetails) -> str:
    """What is wrong, in one line, with the variable that can mend it: Pydantic's location goes on into lists."""
    location = error["loc"]
    key = next((key for key in _leaves(model) if location[: len(key)] == key), None)
    fields = list(_fields_along(model, location))
    # Of what is missing, and of a section that is none, the input is all that stands in its place.
    is_all = error["type"] == "missing" or (error["type"] == "model_type" and _named_sections(fields[-1]) is not None)
    received = "" if is_all or not all(field.repr for field in fields) else f"; received {error['input']!r}"
    mend = "" if key is None else f", or its variable {_variable(key)}"
    name = ".".join(map(str, location))
    return f"{path}: {name}: {error['msg'].lower()}{received}; mend that key there{mend}"


def _leaves(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], FieldInfo]:
    """Every key that holds a value, by its path."""
    found: dict[tuple[str, ...], FieldInfo] = {}
    for name, field in model.model_fields.items():
        section = _section(field)
        found |= {(*prefix, name): field} if section is None else _leaves(section, (*prefix, name))
    return found


def _fields_along(model: type[BaseModel], location: Iterable[object]) -> Iterator[FieldInfo]:
    """The fields on the way to a location, through sections and through mappings of names to sections."""
    inside: type[BaseModel] | None = model
    named: type[BaseModel] | None = None
    for step in location:
        if named is not None:
            inside, named = named, None  # the step was a name
            continue
        field = inside.model_fields.get(str(step)) if inside is not None else None
        if field is None:
            return
        yield field
        inside, named = _section(field), _named_sections(field)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _named_sections(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a mapping of names to models."""
    if typing.get_origin(field.annotation) is not dict:
        return None
    kind = typing.get_args(field.annotation)[1]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _variable(key: tuple[str, ...]) -> str:
    return PREFIX + "_".join(key).upper()


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""
