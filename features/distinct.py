"""Text columns as their distinct values and which of them each row has (Arrow's dictionary arrays).

What is worked out for a distinct value (a hash, a truncated address, a look-up) is then spread over the rows for
nothing. A dictionary made here has no null, no value twice, and none that no row has: what is written with a column
would otherwise hold values of rows that were left out, such as the ids of people who may not be stored.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.int32]


def encoded(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The text column in one chunk, as dictionary<int32, string>."""
    if isinstance(column, pa.ChunkedArray):
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    if column.indices.type != pa.int32() or column.dictionary.null_count:
        return spread(column.dictionary, codes_of(column))
    return column


def codes_of(column: pa.DictionaryArray) -> Codes:
    """Which value of the dictionary each row has, shape (n,); -1 where it has none."""
    indices = column.indices.cast(pa.int32())  # Polars' are unsigned, and have no -1
    if indices.null_count:
        indices = indices.fill_null(-1)
    codes: Codes = indices.to_numpy()
    return codes


def spread(values: pa.Array, codes: Codes, *, are_distinct: bool = False) -> pa.DictionaryArray:
    """`values[code]` for each of `codes`; null for the code -1 and for a value that is null.

    Values that `are_distinct`, and none of them null, are not looked through for equal ones.
    """
    used = np.zeros(len(values) + 1, dtype=bool)
    used[codes] = True
    if not used[:-1].all():
        places = np.cumsum(used, dtype=np.int32) - 1
        places[-1] = -1
        values, codes = values.filter(pa.array(used[:-1])), places[codes]
    indices = pa.array(codes, mask=codes < 0) if used[-1] else pa.array(codes)
    if are_distinct:
        return pa.DictionaryArray.from_arrays(indices, values)
    again = values.dictionary_encode()
    if len(again.dictionary) < len(values):  # some became equal, or null
        indices = again.indices.take(indices)
    return pa.DictionaryArray.from_arrays(indices, again.dictionary)


def only_used(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of dictionary arrays, of which no dictionary holds a value that no row of its chunk has."""
    return pa.chunked_array([_only_used(chunk) for chunk in column.chunks], column.type)


def _only_used(chunk: pa.DictionaryArray) -> pa.DictionaryArray:
    codes, used = codes_of(chunk), np.zeros(len(chunk.dictionary) + 1, dtype=bool)
    used[codes] = True
    if used[:-1].all():
        return chunk
    left = spread(chunk.dictionary, codes, are_distinct=True)
    return pa.DictionaryArray.from_arrays(left.indices.cast(chunk.type.index_type), left.dictionary)


def compacted(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column, of which the dictionary holds nothing that no row has."""
    return spread(column.dictionary, codes_of(column))


def with_compacted_texts(rows: pa.Table, *, most_values: int = 0) -> pa.Table:
    """The rows, whose dictionaries hold nothing that no row has: a small part of a table is then small by itself.

    A dictionary of `most_values` or fewer stays as it is.
    """
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type) and _most_values(rows.column(place)) > most_values:
            rows = rows.set_column(place, field, only_used(rows.column(place)))
    return rows


def _most_values(column: pa.ChunkedArray) -> int:
    """Values in the longest dictionary of a column's chunks."""
    return max((len(chunk.dictionary) for chunk in column.chunks), default=0)


def is_one_of(column: pa.Array | pa.ChunkedArray, values: frozenset[str]) -> NDArray[np.bool_]:
    """Which rows have one of `values`, shape (n,); null has none."""
    column = encoded(column)
    wanted = pa.array(sorted(values), column.dictionary.type)
    found = np.append(np.asarray(pc.is_in(column.dictionary, value_set=wanted)), False)
    has: NDArray[np.bool_] = found[codes_of(column)]
    return has


def with_plain_texts(rows: pa.Table) -> pa.Table:
    """The rows, whatever they held as dictionaries spelled out."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            plain = field.with_type(field.type.value_type)
            rows = rows.set_column(place, plain, rows.column(place).cast(plain.type))
    return rows
