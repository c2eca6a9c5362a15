"""The tiles of one entity as a run of bytes, and back: what the body of an online value is (`features.packing`).

In MessagePack a list of lists, column after column of the tiles' schema; numbers, texts and bytes as they are:

    a plain column    its values, null where there is none; an instant as milliseconds
    a list, a map     how long each is, null where it is none; then what is in them, as the columns of all elements
    a structure       its fields, each as a column

Most values are a few tiles of a dozen columns. As an Arrow record batch, most of such a value is what says where its
columns are, and most of the time goes into taking arrays apart; here one is made of slices of Python's own lists.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa

from features.plain import python_values
from features.runs import prefix_sums
from features.windows import Int64s

Leaf = tuple[list[Any], list[int]]
"""Values of all entities, and where each entity's begin, and the last one's end."""


def tiles_to_bytes(tiles: pa.Table, edges: Int64s) -> Iterator[bytes]:
    """For each entity its tiles, which are the rows from an edge to the next; `edges` [entities + 1] begin at 0."""
    leaves = [leaf for column in tiles.columns for leaf in _leaves(column.combine_chunks(), edges)]
    pack_one = msgpack.Packer().pack
    for one in range(len(edges) - 1):
        yield pack_one([values[starts[one] : starts[one + 1]] for values, starts in leaves])


def tiles_from_bytes(schema: pa.Schema, bodies: Sequence[bytes]) -> tuple[pa.Table, list[int]]:
    """The tiles of all entities, one after the other, and how many each has.

    Raises ValueError for bytes that are no tiles of this schema.
    """
    try:
        return _read(schema, [msgpack.unpackb(body) for body in bodies])
    except (msgpack.UnpackException, pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _leaves(column: pa.Array, edges: Int64s) -> Iterator[Leaf]:
    kind = column.type
    if pa.types.is_struct(kind):
        assert not column.null_count, "a tile's lists hold whole elements"
        for field in column.flatten():
            yield from _leaves(field, edges)
    elif pa.types.is_list(kind) or pa.types.is_map(kind):
        is_there = np.asarray(column.is_valid())
        present = column.drop_null() if column.null_count else column
        offsets = np.asarray(present.offsets, dtype=np.int64)
        lengths = np.zeros(len(column), dtype=np.int64)
        lengths[is_there] = np.diff(offsets)
        yield python_values(pa.array(lengths, mask=~is_there)), edges.tolist()
        ends = prefix_sums(lengths)[edges]
        children = [present.values] if pa.types.is_list(kind) else [present.keys, present.items]
        for child in children:
            yield from _leaves(child.slice(offsets[0], offsets[-1] - offsets[0]), ends)
    else:
        yield python_values(column.view(pa.int64()) if pa.types.is_timestamp(kind) else column), edges.tolist()


def _read(schema: pa.Schema, bodies: Sequence[Sequence[list[Any]]]) -> tuple[pa.Table, list[int]]:
    expected = sum(_leaves_of(field.type) for field in schema)
    if any(len(body) != expected for body in bodies):
        raise ValueError(f"not {expected} lists")
    counts = np.array([len(body[0]) for body in bodies], dtype=np.int64)
    leaves = zip(*bodies, strict=True) if bodies else iter([()] * expected)
    return pa.table([_column(field.type, leaves, counts) for field in schema], schema), counts.tolist()


def _leaves_of(kind: pa.DataType) -> int:
    """How many lists a column of the type becomes."""
    if pa.types.is_struct(kind):
        return sum(_leaves_of(field.type) for field in kind)
    if pa.types.is_list(kind):
        return 1 + _leaves_of(kind.value_type)
    return 1 + _leaves_of(kind.key_type) + _leaves_of(kind.item_type) if pa.types.is_map(kind) else 1


def _column(kind: pa.DataType, leaves: Iterator[Sequence[list[Any]]], counts: Int64s) -> pa.Array:
    """The column of all entities from the next of the `leaves`; `counts` [entities] are how many values each has."""
    if pa.types.is_struct(kind):
        fields = list(kind)
        return pa.StructArray.from_arrays([_column(field.type, leaves, counts) for field in fields], fields=fields)
    parts = next(leaves)
    if any(len(part) != count for part, count in zip(parts, counts.tolist(), strict=True)):
        raise ValueError("columns of different lengths")
    values = list(chain.from_iterable(parts))
    if not pa.types.is_list(kind) and not pa.types.is_map(kind):
        return pa.array(values, pa.int64()).view(kind) if pa.types.is_timestamp(kind) else pa.array(values, kind)
    lengths = np.array([length or 0 for length in values], dtype=np.int64)
    if (lengths < 0).any():
        raise ValueError("a length below 0")
    edges = prefix_sums(lengths)
    offsets = pa.array(edges.astype(np.int32), mask=np.array([*(one is None for one in values), False]))
    of_entities = np.diff(edges[prefix_sums(counts)])
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(offsets, _column(kind.value_type, leaves, of_entities), type=kind)
    keys, items = (_column(one, leaves, of_entities) for one in (kind.key_type, kind.item_type))
    return pa.MapArray.from_arrays(offsets, keys, items, type=kind)
