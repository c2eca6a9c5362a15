"""Values of a source's types as values of the contract's: exactly, or not at all.

What loses nothing is done: whole numbers widen, or narrow where they fit; instants of any unit, with a zone or without
(then UTC), become milliseconds in UTC, parts of a millisecond cut off; whole numbers that stand for instants are
milliseconds since the epoch, as everywhere in the contract; texts are read as what they spell. A value that cannot be
cast is marked and becomes null; it never stops the others.
"""

import uuid
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
_Convert = Callable[[pa.Array], pa.Array]

_UTC_MICROS = pa.timestamp("us", tz="UTC")
_UUID_BYTES = 16


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of `source` can be values of `target` at all."""
    return _converter(_plain(source), target) is not None


def cast(column: pa.ChunkedArray | pa.Array, target: pa.DataType) -> tuple[pa.Array, Flags]:
    """The column as `target`, and which of its values cannot be that. The types must be castable."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    values = values.cast(_plain(values.type)) if pa.types.is_dictionary(values.type) else values
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    convert = _converter(values.type, target)
    assert convert is not None, f"a mapping from {values.type} to {target} was let through"
    bad = np.zeros(len(values), dtype=bool)
    parts = _each(convert, values, bad, 0, target)
    return pa.concat_arrays(parts) if parts else pa.array([], target), bad


def _each(convert: _Convert, values: pa.Array, bad: Flags, start: int, target: pa.DataType) -> list[pa.Array]:
    """All at once; what fails in halves, down to the single values at fault."""
    if not len(values):
        return []
    try:
        return [convert(values)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError, OverflowError):
        if len(values) == 1:
            bad[start] = True
            return [pa.nulls(1, target)]
    half = len(values) // 2
    return [
        *_each(convert, values[:half], bad, start, target),
        *_each(convert, values[half:], bad, start + half, target),
    ]


def _plain(kind: pa.DataType) -> pa.DataType:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _converter(source: pa.DataType, target: pa.DataType) -> _Convert | None:
    """How one becomes the other; None where it cannot."""
    if pa.types.is_null(source):
        return lambda values: pa.nulls(len(values), target)
    if pa.types.is_timestamp(target):
        return _to_instants(source, target)
    if pa.types.is_string(target):
        return _to_texts(source)
    if pa.types.is_list(target):
        return (lambda values: values.cast(target)) if _is_list_of_texts(source) else None
    number = pa.types.is_integer(source) or pa.types.is_floating(source) or pa.types.is_decimal(source)
    fits = pa.types.is_boolean(source) if pa.types.is_boolean(target) else number
    return (lambda values: values.cast(target)) if fits or _is_text(source) else None


def _to_instants(source: pa.DataType, target: pa.DataType) -> _Convert | None:
    if pa.types.is_timestamp(source):
        return lambda values: _milliseconds(values, target)
    if pa.types.is_integer(source):
        return lambda values: values.cast(pa.int64()).cast(target)
    if pa.types.is_date(source):
        return lambda values: values.cast(pa.timestamp("ms")).cast(target)
    return (lambda values: _milliseconds(_spelled_instants(values), target)) if _is_text(source) else None


def _to_texts(source: pa.DataType) -> _Convert | None:
    if pa.types.is_fixed_size_binary(source) and source.byte_width == _UUID_BYTES:
        return lambda values: pa.array(
            [None if value is None else str(uuid.UUID(bytes=value)) for value in values.to_pylist()], pa.string()
        )
    is_readable = _is_text(source) or pa.types.is_integer(source) or pa.types.is_binary(source)
    return (lambda values: values.cast(pa.string())) if is_readable else None


def _milliseconds(instants: pa.Array, target: pa.DataType) -> pa.Array:
    """Towards the past, also before 1970, where a cast would go towards the future."""
    per_ms = {"us": 1_000, "ns": 1_000_000}.get(instants.type.unit)
    if per_ms is None:
        return instants.cast(pa.timestamp(target.unit, tz=instants.type.tz)).cast(target)
    counts = pc.fill_null(instants.cast(pa.int64()), 0).to_numpy() // per_ms
    mask = np.asarray(instants.is_null()) if instants.null_count else None
    return pa.array(counts, pa.int64(), mask=mask).cast(target)


def _spelled_instants(texts: pa.Array) -> pa.Array:
    """ISO 8601; Arrow reads either texts with a zone or texts without one, so a mixture comes here in parts."""
    try:
        return texts.cast(_UTC_MICROS)
    except pa.ArrowInvalid:
        return texts.cast(pa.timestamp("us")).cast(_UTC_MICROS)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list_of_texts(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list and _is_text(kind.value_type)
