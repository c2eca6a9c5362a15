"""A source's rows written down one by one, for quarantine, and read again.

As JSON: instants in ISO 8601, bytes in base64.
"""

import base64
import json
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def as_json(rows: pa.Table) -> list[bytes | None]:
    """Each row as one JSON object of its columns."""
    return [json.dumps(row, default=_plain, ensure_ascii=False).encode() for row in rows.to_pylist()]


def from_json(values: Sequence[bytes | None], schema: pa.Schema) -> tuple[pa.Table, NDArray[np.int64]]:
    """Rows that were written down, as rows of `schema`, and which of `values` they are.

    Columns that `schema` does not have any more are left out, ones it has gained are null. What does not fit the types
    that the columns have by now, or is no row at all, is not among them.
    """
    rows: list[pa.RecordBatch] = []
    at: list[int] = []
    for place, value in enumerate(values):
        try:
            written = json.loads(value or b"")
            columns = [pa.array([_revived(written.get(one.name), one.type)], one.type) for one in schema]
        except (ValueError, TypeError, AttributeError, InvalidOperation, pa.ArrowException):
            continue
        rows.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        at.append(place)
    return pa.Table.from_batches(rows, schema), np.array(at, np.int64)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    assert isinstance(value, Decimal | UUID), f"no column holds a {type(value).__name__}"
    return str(value)


def _revived(value: Any, kind: pa.DataType) -> Any:
    """A value of JSON as pyarrow takes one of `kind`."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: _revived(value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_revived(key, kind.key_type), _revived(one, kind.item_type)) for key, one in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_revived(one, kind.value_type) for one in value]
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_time(kind):
        return time.fromisoformat(value)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if isinstance(kind, pa.UuidType):
        return UUID(value).bytes
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return base64.b64decode(value)
    return value
