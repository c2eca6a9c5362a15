"""What Iceberg keeps about a data file, so that it need not be opened: bounds, counts, partition values."""

from collections.abc import Iterable
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import PrimitiveType

from pipelines.lakehouse.scans import scan_tasks


def bounds(table: Table, file: DataFile, column: str) -> tuple[Any, Any] | None:
    """Least and greatest value of a column in `file`; None where the file does not say.

    Texts are cut short, the lower one down and the upper one up, as Iceberg keeps them; instants are microseconds.
    """
    if column not in table.schema().column_names:
        return None
    field = table.schema().find_field(column)
    lower, upper = (file.lower_bounds or {}).get(field.field_id), (file.upper_bounds or {}).get(field.field_id)
    if lower is None or upper is None or not isinstance(field.field_type, PrimitiveType):
        return None
    return from_bytes(field.field_type, lower), from_bytes(field.field_type, upper)


def bounds_ms(table: Table, file: DataFile, column: str) -> tuple[int, int] | None:
    """The first and last instant of a column in `file`, in milliseconds."""
    found = bounds(table, file, column)
    return (found[0] // 1000, found[1] // 1000) if found is not None else None


def newest_ms(table: Table | None, column: str) -> int | None:
    """The latest instant of a column; None for an empty table."""
    if table is None:
        return None
    found = [bounds_ms(table, task.file, column) for task in scan_tasks(table)]
    return max((one[1] for one in found if one is not None), default=None)


def only_topic(table: Table, file: DataFile, topics: Iterable[str]) -> str | None:
    """The topic all rows of `file` came from, if no other of `topics` lies within the file's bounds; else None."""
    found = bounds(table, file, "topic")
    if found is None:
        return None
    within = [topic for topic in topics if found[0] <= topic <= found[1]]
    return within[0] if len(within) == 1 else None


def partition_value(table: Table, file: DataFile, column: str) -> Any:
    """The value all rows of `file` have in `column`, where the table is partitioned by it; else None."""
    spec = table.specs()[file.spec_id]
    field_id = table.schema().find_field(column).field_id
    for position, field in enumerate(spec.fields):
        if field.source_id == field_id and isinstance(field.transform, IdentityTransform):
            return file.partition[position]
    return None


def null_count(table: Table, file: DataFile, column: str) -> int | None:
    """How many rows of `file` have no value in `column`; None where the file does not say (lists).

    A column that is not in the file at all is null throughout.
    """
    if column not in table.schema().column_names:
        return file.record_count
    field = table.schema().find_field(column)
    if isinstance(field.field_type, PrimitiveType):
        known = (file.null_value_counts or {}).get(field.field_id)
        if known is not None:
            return int(known)
    elif not file.column_sizes:
        return None
    present = set(file.column_sizes or {})
    leaves = _leaf_ids(table, column)
    return file.record_count if present and not present & leaves else None


def _leaf_ids(table: Table, column: str) -> set[int]:
    """The field ids under which a column's values are stored: those of a list's elements, a record's fields."""
    schema = table.schema()
    return {
        field_id
        for field_id, name in ((one, schema.find_column_name(one)) for one in schema.field_ids)
        if name is not None and (name == column or name.startswith(f"{column}."))
    }
