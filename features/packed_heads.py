"""The head of a packed value (`features/packing.py`): what it is of, and which of its rows holds when.

What is asked for of one key or a few is found key by key, which takes a tenth of the time that arrays need to begin;
what is asked for of many, in arrays. Both find the same.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from features.declarations import FeatureGroup
from features.errors import PackedValueError
from features.stretches import NEVER_MS
from features.windows import Cadence, Int64s, valued_at_ms

ROWS = 4
"""Most rows of a value."""

_NAME, _VERSION = b"REEL", b"\x03"
_MAGIC = _NAME + _VERSION
_FEW = 24  # values from which on arrays are faster

_HEAD = np.dtype(
    [
        ("magic", "S5"),  # the name and the version of this layout
        ("fingerprint", "<u8"),  # of the declaration
        ("size", "<i8"),  # of the whole value, bytes
        ("last_event_ms", "<i8"),
        ("bounds_ms", "<i8", ROWS + 1),  # row i holds for bounds[i] <= t < bounds[i + 1], t being what is valued at
        ("edges", "<i8", ROWS + 1),  # row i lies at edges[i]:edges[i + 1]; one that is not there is empty
    ]
)
_FIELDS = struct.Struct(f"<5s8sqq{ROWS + 1}q{ROWS + 1}q")  # the same, the fingerprint as bytes
_BOUNDS, _EDGES = 4, 4 + ROWS + 1  # where the two lists begin among the fields
HEAD_BYTES = _FIELDS.size


@dataclass(frozen=True)
class Found:
    """Where in each of some packed values the answer at its instant is."""

    asked_ms: Sequence[int]
    """The instant of each."""
    ages_ms: Sequence[int | None]
    """From the last event to that instant; None of whom nothing was known by then."""
    rows: Sequence[tuple[int, int, int]]
    """(place, start, end) of those whose row, at these bytes, is the answer."""
    missed: Sequence[int]
    """Places of those whose tiles must be read."""


def head_of(group: FeatureGroup, last_event_ms: int, held: Sequence[tuple[int, bytes]], body: bytes) -> bytes:
    """The head of a value: (from when on, row) of its rows, then when the last one ends; and what comes after them."""
    absent = ROWS + 1 - len(held)
    bounds_ms = [from_ms for from_ms, _ in held] + [NEVER_MS] * absent
    lengths = [len(row) for _, row in held] + [0] * absent
    edges = [HEAD_BYTES, *(HEAD_BYTES + length for length in accumulate(lengths[:-1]))]
    return _FIELDS.pack(_MAGIC, group.fingerprint, edges[-1] + len(body), last_event_ms, *bounds_ms, *edges)


def read_heads(group: FeatureGroup, values: Sequence[bytes]) -> Any:
    """The heads of packed values, [n] of `_HEAD`.

    Raises:
        PackedValueError: one is damaged, or not of this declaration.
    """
    joined = b"".join([value[:HEAD_BYTES] for value in values])
    if len(joined) == len(values) * HEAD_BYTES:
        heads = np.frombuffer(joined, _HEAD)
        is_ours = heads["magic"] == _MAGIC
        is_ours &= heads["fingerprint"] == int.from_bytes(group.fingerprint, "little")
        is_ours &= heads["size"] == [len(value) for value in values]
        if is_ours.all():
            return heads
    wrong = (mistake for mistake in (_mistake(group, value) for value in values) if mistake)
    raise PackedValueError(next(wrong))


def find(group: FeatureGroup, values: Sequence[bytes], asked_at_ms: int, *, as_newest: bool) -> Found:
    """Where the answer at an instant is in each value; `as_newest` as `features.packing.read_values` has it.

    Raises:
        PackedValueError: one is damaged, or not of this declaration.
    """
    return (_find_one_by_one if len(values) < _FEW else _find_together)(group, values, asked_at_ms, as_newest)


def _find_one_by_one(group: FeatureGroup, values: Sequence[bytes], asked_at_ms: int, as_newest: bool) -> Found:
    is_tiled, ttl_ms, magic, fingerprint = group.cadence is Cadence.EVENT, group.ttl_ms, _MAGIC, group.fingerprint
    asked_ms: list[int] = []
    ages_ms: list[int | None] = []
    rows: list[tuple[int, int, int]] = []
    missed: list[int] = []
    for place, value in enumerate(values):
        fields = _FIELDS.unpack_from(value) if len(value) >= HEAD_BYTES else (b"", b"", 0)
        if fields[0] != magic or fields[1] != fingerprint or fields[2] != len(value):
            raise PackedValueError(_mistake(group, value))
        last_event_ms = fields[3]
        instant_ms = max(asked_at_ms, last_event_ms + group.delay + 1) if as_newest and is_tiled else asked_at_ms
        at_ms = valued_at_ms(instant_ms, group.cadence, group.delay)
        row = bisect_right(fields, at_ms, _BOUNDS, _EDGES) - _BOUNDS - 1
        age_ms = instant_ms - last_event_ms
        asked_ms.append(instant_ms)
        ages_ms.append(age_ms if row >= 0 else None)
        start, end = (fields[_EDGES + row], fields[_EDGES + row + 1]) if 0 <= row < ROWS else (0, 0)
        if end > start:
            if age_ms <= ttl_ms:
                rows.append((place, start, end))
        elif is_tiled and (age_ms <= ttl_ms or row < 0):
            missed.append(place)
    return Found(asked_ms, ages_ms, rows, missed)


def _find_together(group: FeatureGroup, values: Sequence[bytes], asked_at_ms: int, as_newest: bool) -> Found:
    heads = read_heads(group, values)
    asked_ms: Int64s = np.full(len(values), asked_at_ms, dtype=np.int64)
    if as_newest and group.cadence is Cadence.EVENT:
        asked_ms = np.maximum(asked_ms, heads["last_event_ms"] + group.delay + 1)
    at_ms = valued_at_ms(asked_ms, group.cadence, group.delay)
    row = (heads["bounds_ms"] <= at_ms[:, None]).sum(axis=1) - 1
    inside = np.clip(row, 0, ROWS - 1)
    every = np.arange(len(heads))
    starts, ends = heads["edges"][every, inside], heads["edges"][every, inside + 1]
    ages_ms = asked_ms - heads["last_event_ms"]
    is_known, is_fresh = row >= 0, ages_ms <= group.ttl_ms
    has_row = (row == inside) & (ends > starts)
    is_missed = ~has_row & (is_fresh | ~is_known) & (group.cadence is Cadence.EVENT)
    shown = np.flatnonzero(has_row & is_fresh)
    return Found(
        asked_ms.tolist(),
        [age_ms if known else None for age_ms, known in zip(ages_ms.tolist(), is_known.tolist(), strict=True)],
        list(zip(shown.tolist(), starts[shown].tolist(), ends[shown].tolist(), strict=True)),
        np.flatnonzero(is_missed).tolist(),
    )


def _mistake(group: FeatureGroup, value: bytes) -> str | None:
    """What is wrong with the head of a packed value."""
    if not value.startswith(_NAME):
        return f"{len(value):,} bytes beginning {value[:8]!r} are no packed value of {group.name}"
    if not value.startswith(_MAGIC):
        return f"a packed value of {group.name} has another layout; write the group to the online store again"
    if len(value) < HEAD_BYTES:
        return f"a packed value of {group.name} is damaged: {len(value):,} bytes are less than its head"
    fingerprint, size = _FIELDS.unpack_from(value)[1:3]
    if fingerprint != group.fingerprint:
        return (
            f"a packed value has declaration {fingerprint.hex()}, and {group.name} is {group.fingerprint.hex()}: "
            "it is of another group or an older declaration; write the group to the online store again"
        )
    if size != len(value):
        return f"a packed value of {group.name} is damaged: it has {len(value):,} bytes of {size:,}"
    return None
