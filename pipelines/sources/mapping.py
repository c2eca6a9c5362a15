"""Which column of a source is which column of the contract: checked once, before anything is read."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contract.events import Contract
from pipelines.errors import UsageError
from pipelines.settings import TableMapping
from pipelines.sources.casting import can_cast, cast

TOPIC = "topic"  # no property, but says which event is meant where two share a name


class MappingError(UsageError):
    """A source's columns cannot be read as events."""


@dataclass(frozen=True)
class ColumnMapping:
    """Contract columns by where they come from: a path into the source's columns, or one value for all rows."""

    paths: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, Any]

    @property
    def reads(self) -> tuple[str, ...]:
        """The source's columns that are needed."""
        return tuple(sorted({path[0] for path in self.paths.values()}))

    def only(self, columns: Iterable[str]) -> "ColumnMapping":
        """What is known of `columns`."""
        wanted = set(columns)
        return ColumnMapping(
            {name: path for name, path in self.paths.items() if name in wanted},
            {name: value for name, value in self.constants.items() if name in wanted},
        )

    def project(self, rows: pa.Table) -> dict[str, pa.ChunkedArray]:
        """The contract's columns, of the source's types still."""
        found = {name: _at(rows, path) for name, path in self.paths.items()}
        return found | {
            name: pa.chunked_array([pa.repeat(pa.scalar(value), rows.num_rows)])
            for name, value in self.constants.items()
        }


def resolve(contract: Contract, source: pa.Schema, wanted: TableMapping, where: str) -> ColumnMapping:
    """The mapping of a source with the columns `source`; `where` is the settings' key of it.

    A column of the source that is called as one of the contract is that, unless the mapping says else, or null.
    Raises MappingError, with the nearest name, for a column that is nowhere, one of a type that cannot be cast, and an
    event without what every event must have.
    """
    kinds = {column.name: column.arrow for event in contract.events for column in event.columns} | {TOPIC: pa.string()}
    for key in (*wanted.columns, *wanted.constants):
        if key not in kinds:
            raise MappingError(f"{where}: no event of the contract has a column {key!r}{_nearest(key, kinds)}")
    if both := wanted.columns.keys() & wanted.constants.keys():
        raise MappingError(f"{where}: {min(both)} has both a column and a constant; leave one of them out")
    said = {TOPIC, *wanted.columns, *wanted.constants}
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in source.names if name in kinds and name not in said}
    for name, spelled in wanted.columns.items():
        if spelled is not None:
            paths[name] = _path(source, spelled, f"{where}.columns.{name}")
    for name, path in paths.items():
        _check_type(source, name, path, kinds[name], where)
    for name, value in wanted.constants.items():
        kind = pa.scalar(value).type
        if not can_cast(kind, kinds[name]) or cast(pa.array([value]), kinds[name])[1].any():
            raise MappingError(f"{where}.constants.{name}: {value!r} is no {kinds[name]}")
    _check_required(contract, source, {*paths, *wanted.constants}, where)
    return ColumnMapping(paths, dict(wanted.constants))


def _check_type(source: pa.Schema, name: str, path: tuple[str, ...], kind: pa.DataType, where: str) -> None:
    received = _type_at(source, path)
    assert received is not None, "the path was found before"
    if not can_cast(received, kind):
        raise MappingError(
            f"{where}: the column {'.'.join(path)} is {received}, which cannot be read as {name}, a {kind}; "
            f"map another with {where}.columns.{name}, or null to do without"
        )


def _check_required(contract: Contract, source: pa.Schema, known: set[str], where: str) -> None:
    required = {
        column.name
        for event in contract.events
        for column in event.columns
        if column.path[0] == "envelope" and not column.nullable
    }
    for name in sorted(required - known):
        raise MappingError(
            f"{where}: every event has {name}, and no column is mapped to it{_nearest(name, source.names)}; say which "
            f"with {where}.columns.{name}, or one value for all rows with {where}.constants.{name}"
        )


def _path(source: pa.Schema, spelled: str, where: str) -> tuple[str, ...]:
    for path in ((spelled,), tuple(spelled.split("."))):
        if _type_at(source, path) is not None:
            return path
    raise MappingError(
        f"{where}: the source has no column {spelled!r}{_nearest(spelled, _spelled_columns(source))}; "
        f"it has: {', '.join(source.names)}"
    )


def _spelled_columns(fields: Iterable[pa.Field], prefix: str = "") -> Iterable[str]:
    for field in fields:
        yield prefix + field.name
        if pa.types.is_struct(field.type):
            yield from _spelled_columns(field.type.fields, f"{prefix}{field.name}.")


def _type_at(source: pa.Schema, path: tuple[str, ...]) -> pa.DataType | None:
    fields: Mapping[str, pa.Field] = {field.name: field for field in source}
    kind: pa.DataType | None = None
    for step in path:
        if step not in fields:
            return None
        kind = fields[step].type
        fields = {field.name: field for field in kind.fields} if pa.types.is_struct(kind) else {}
    return kind


def _at(rows: pa.Table, path: tuple[str, ...]) -> pa.ChunkedArray:
    column = rows[path[0]]
    for step in path[1:]:
        column = pc.struct_field(column, step)
    return column


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
