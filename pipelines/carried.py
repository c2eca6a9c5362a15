"""What came with the messages beside their bodies: headers, and the trace they belong to (spec 11.2)."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.redaction import redact
from pipelines.kafka.message import Headers
from pipelines.lakehouse import tables

TRACE_ID = "trace_id"
# A header that names a person would take a plain id past the door; the event's envelope has it, hashed.
_IDENTIFYING = re.compile(
    r"(?:^|[-_.])(?:user|profile|session|device|account|household|client[-_.]?ip|ip|forwarded)", re.I
)


def carried_columns(headers: Sequence[Headers | None], at: NDArray[np.int64]) -> dict[str, pa.Array]:
    """`trace_id` and `headers` of the messages `at`; nothing when none of them has a header.

    Every header is kept in its order, repeated keys included, but for those that name a person or an address. Texts
    have personal data replaced; values that are no text are kept as they are.
    """
    chosen = headers if len(at) == len(headers) else [headers[index] for index in at.tolist()]
    counts = np.fromiter((len(one) if one else 0 for one in chosen), np.int64, len(chosen))
    if not counts.any():
        return {}
    flat = [pair for one in chosen if one for pair in one]
    keys = pa.array([key for key, _ in flat], pa.string()).dictionary_encode()
    values = pa.array([value for _, value in flat], pa.binary())
    names: list[str] = keys.dictionary.to_pylist()
    of = np.repeat(np.arange(len(chosen)), counts)
    codes = keys.indices.to_numpy()
    kept = np.array([_IDENTIFYING.search(name) is None for name in names])[codes]
    if not kept.all():
        keys, values, of, codes = keys.filter(pa.array(kept)), values.filter(pa.array(kept)), of[kept], codes[kept]
        counts = np.bincount(of, minlength=len(chosen))
    values = _without_personal_data(values, names, codes)
    pairs = pa.StructArray.from_arrays(
        [keys.cast(pa.string()), values], fields=list(tables.CARRIED.field("headers").type.value_type)
    )
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    columns = {"headers": pa.ListArray.from_arrays(offsets, pairs, type=tables.CARRIED.field("headers").type)}
    if TRACE_ID in names:
        traced = np.flatnonzero(codes == names.index(TRACE_ID))[::-1]
        position = np.full(len(chosen), -1)
        position[of[traced]] = traced  # backwards, so that the first of several stays
        columns[TRACE_ID] = _text(values.take(pa.array(position, mask=position < 0)))
    return columns


def _without_personal_data(values: pa.Array, names: Sequence[str], codes: NDArray[np.int64]) -> pa.Array:
    """Each distinct text looked at once; trace ids, distinct in every message, are hexadecimal and pass."""
    trace = names.index(TRACE_ID) if TRACE_ID in names else -1
    looked_at = np.flatnonzero(codes != trace)
    if not len(looked_at):
        return values
    encoded = values.take(pa.array(looked_at)).dictionary_encode()
    cleaned = pa.array([_redacted(value) for value in encoded.dictionary.to_pylist()], pa.binary())
    if cleaned.equals(encoded.dictionary):
        return values
    places = np.arange(len(values))
    places[looked_at] = np.arange(len(looked_at)) + len(values)
    return pa.concat_arrays([values, cleaned.take(encoded.indices)]).take(pa.array(places))


def _redacted(value: bytes | None) -> bytes | None:
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    cleaned: str = redact(pa.chunked_array([[text]], pa.string()))[0].as_py()
    return cleaned.encode()


def _text(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # a trace id that is no text
        return pa.array(
            [None if value is None else value.decode(errors="replace") for value in values.to_pylist()], pa.string()
        )
