"""The left table: rows in parts, each in memory, in Ray's store or in row groups of Parquet files.

Parts are small enough that a task holds one; rows stay where they are until their features are brought to them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from features.columns import flat, milliseconds, require_columns
from features.distinct import codes_of, encoded
from features.errors import LogError
from pipelines.errors import UsageError

ROWS_PER_PART = 250_000

Left: TypeAlias = "pa.Table | str | Path | Sequence[str | Path] | Sequence[ray.ObjectRef[Any]]"
"""A table; Parquet files, or folders of them; or tables in Ray's store, in the order of the rows."""


class LeftTableError(UsageError):
    """The left table is no table, or its parts do not fit together."""


@dataclass(frozen=True)
class FilePart:
    """Some row groups of a Parquet file that every node can open."""

    path: str
    row_groups: tuple[int, ...]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Its rows; texts come as dictionaries where only some `columns` are read."""
        texts = [] if columns is None else [name for name in columns if _is_text(self.path, name)]
        with pq.ParquetFile(self.path, read_dictionary=texts) as file:
            return file.read_row_groups(self.row_groups, columns=columns, use_threads=False)


Part: TypeAlias = pa.Table | FilePart


def rows_of(part: Part) -> pa.Table:
    """A part's rows."""
    return part.read() if isinstance(part, FilePart) else part


def columns_of(part: Part, names: Sequence[str]) -> pa.Table:
    """Some columns of a part."""
    require_columns(schema_of(part).empty_table(), names, "the left table")
    return part.read(names) if isinstance(part, FilePart) else part.select(list(names))


def schema_of(part: Part) -> pa.Schema:
    """A part's columns."""
    return pq.read_schema(part.path) if isinstance(part, FilePart) else part.schema


def parts_of(left: Left, *, whole_files: bool = False) -> "list[Part | ray.ObjectRef[Any]]":
    """The left table in parts, at least one; each file is one part if `whole_files`, else as many as its rows need.

    Raises:
        LeftTableError: it is nothing of `Left`, or a path is no Parquet file and no folder with one.
    """
    if isinstance(left, pa.Table):
        starts = range(0, max(left.num_rows, 1), ROWS_PER_PART)
        return [left.slice(start, ROWS_PER_PART) for start in starts]
    pieces: list[Any] = [left] if isinstance(left, str | Path) else list(left)
    if not pieces:
        raise LeftTableError("the left table has no part; give a table, Parquet files, or tables in Ray's store")
    if all(isinstance(piece, ray.ObjectRef) for piece in pieces):
        return pieces
    if not all(isinstance(piece, str | Path) for piece in pieces):
        raise LeftTableError(
            f"the left table is a {type(pieces[0]).__name__}; give a table, Parquet files, or tables in Ray's store"
        )
    most_rows = sys.maxsize if whole_files else ROWS_PER_PART
    return [part for piece in pieces for path in _files(Path(piece)) for part in _parts_of_file(path, most_rows)]


def asked_of(part: pa.Table, key: str, instant: str) -> tuple[pa.DictionaryArray, np.ndarray, np.ndarray]:
    """(keys, instants in ms, rows) of a part's rows that ask for anything: those with a key and an instant.

    Raises:
        LogError: the instant is no timestamp, or the key no text.
    """
    kind = part.schema.field(instant).type
    if not pa.types.is_timestamp(kind):
        raise LogError(f"the left table's {instant} is {kind}, where a timestamp is needed; cast it")
    keys = encoded(_as_text(part[key], key))
    codes = codes_of(keys)
    rows = np.flatnonzero((codes >= 0) & np.asarray(flat(part[instant]).is_valid()))
    asked_ms = milliseconds(part[instant].take(pa.array(rows)), instant)
    return keys.take(pa.array(rows)), asked_ms, rows


def _as_text(column: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    raise LogError(f"the left table's key {key} is {kind}, where a text is needed; cast it as the features' keys are")


def _is_text(path: str, name: str) -> bool:
    kind = pq.read_schema(path).field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _files(path: Path) -> list[str]:
    found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise LeftTableError(f"{path} is no Parquet file and no folder with one; name where the left table is")
    return [str(file) for file in found]


def _parts_of_file(path: str, most_rows: int) -> list[FilePart]:
    try:
        metadata = pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        raise LeftTableError(f"{path} is no Parquet file: {error}") from None
    parts: list[FilePart] = []
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if groups and rows + size > most_rows:
            parts.append(FilePart(path, tuple(groups)))
            groups, rows = [], 0
        groups.append(group)
        rows += size
    return [*parts, FilePart(path, tuple(groups))]
