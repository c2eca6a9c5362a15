"""Between Arrow columns and NumPy arrays: the few conversions the engine does at its doors."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import LogError
from features.windows import Int64s

TIMESTAMP = pa.timestamp("ms", tz="UTC")


def require_columns(table: pa.Table, names: Iterable[str], what: str) -> None:
    """Raise `LogError` unless the table has every column named."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise LogError(f"{what} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.column_names)}")


def as_declared(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The schema's columns in its types: stores give microseconds and large strings. Else `LogError`."""
    require_columns(table, schema.names, what)
    table = table.select(schema.names)
    if table.schema.equals(schema):
        return table
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LogError(f"{what} does not fit its declaration: {error}") from None


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one contiguous array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def milliseconds(column: pa.Array | pa.ChunkedArray, what: str = "a time column") -> Int64s:
    """Timestamps of any unit, or whole numbers, as int64 milliseconds since 1970. Nulls raise `LogError`."""
    array = flat(column)
    if array.null_count:
        raise LogError(f"{what} has {array.null_count:,} null(s); give each row its time, or leave it out")
    if not pa.types.is_timestamp(array.type):
        return np.asarray(array.cast(pa.int64()), dtype=np.int64)
    instants = np.asarray(array.view(pa.int64()), dtype=np.int64)
    if array.type.unit == "ms":
        return instants
    if array.type.unit == "s":
        return instants * 1000
    return instants // (1000 if array.type.unit == "us" else 1_000_000)


def timestamps(instants_ms: Int64s) -> pa.Array:
    """int64 milliseconds as `timestamp[ms, UTC]`."""
    return pa.array(instants_ms, pa.int64()).view(TIMESTAMP)


def flags(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """A Boolean column as a mask; null is false."""
    return np.asarray(pc.fill_null(flat(column), False), dtype=np.bool_)


def codes_in(values: pa.Array | pa.ChunkedArray, vocabulary: pa.Array) -> Int64s:
    """Place of each value in the vocabulary; -1 where it is null or not there."""
    if len(vocabulary) == 0:
        return np.full(len(values), -1, dtype=np.int64)
    if pa.types.is_dictionary(values.type):
        encoded = flat(values)
        codes = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int64)
        return np.append(codes_in(encoded.dictionary, vocabulary), -1)[codes]
    places = pc.index_in(flat(values).cast(vocabulary.type), value_set=vocabulary, skip_nulls=True)
    return np.asarray(pc.fill_null(places, -1), dtype=np.int64)


def encode(values: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Int64s]:
    """Distinct values in ascending order, and the place of each value among them (-1 for null)."""
    encoded = flat(values).dictionary_encode()
    order = np.asarray(pc.sort_indices(encoded.dictionary), dtype=np.int64)
    indices = pc.fill_null(encoded.indices, -1) if encoded.indices.null_count else encoded.indices
    codes = np.asarray(indices, dtype=np.int64)
    if (order[1:] > order[:-1]).all():  # in the order of the alphabet already, as in files that are sorted by it
        return encoded.dictionary, codes
    rank = np.full(len(order) + 1, -1, dtype=np.int64)  # the place before the first is that of null
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[codes]


def rows_at(table: pa.Table, places: Int64s) -> pa.Table:
    """The rows at the places; the table itself where they are all of its rows, in their order."""
    if len(places) == table.num_rows and (places == np.arange(len(places))).all():
        return table
    return table.take(pa.array(places))


def take(array: pa.Array, places: Int64s) -> pa.Array:
    """`array` at the places; null where a place is -1."""
    return array.take(pa.array(places, mask=places < 0))
