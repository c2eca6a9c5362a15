"""Rows as a person can read them, and as JSON has them.

A column without a value is left out. Instants are ISO 8601 in UTC; bytes are text where they are text, else
`{"base64": ...}`; numbers that JSON lacks (infinities) are text. Of ids only the person's own are shown: whoever else
stands on a row is "another person".
"""

import base64
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from pipelines.lakehouse.tables import PERSON_COLUMNS
from pipelines.privacy.person import Person

Row = dict[str, Any]
ANOTHER = "another person"


def rows_of_json(rows: pa.Table, person: Person) -> Iterator[Row]:
    """Rows that are the person's."""
    own = {name: frozenset(person.ids.get(name, ())) for name in PERSON_COLUMNS}
    for batch in rows.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield row_of_json(row, own)


def row_of_json(row: Mapping[str, Any], own: Mapping[str, frozenset[str]]) -> Row:
    """One row; `own` says which ids in which column are the person's."""
    return {
        name: ANOTHER if name in own and value not in own[name] else plain(value)
        for name, value in row.items()
        if value is not None
    }


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def _text(raw: bytes) -> str | dict[str, str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
    return text if text.isprintable() else {"base64": base64.b64encode(raw).decode()}
