"""What an event must have and be before it may come in: reasons to set it aside (spec 11.1)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.contract.avro_cursor import END_MS, FIRST_MS
from pipelines.contract.events import EventSchema

Flags = NDArray[np.bool_]

# What the envelope promises of event_timestamp: years 1970 to 2099. [first, end) in milliseconds since the epoch.
EVENT_TIMESTAMPS_MS = (0, 4_102_444_800_000)
# Any other instant is stored as it was sent, a device's wrong clock included, if a calendar has it.
CALENDAR_MS = (FIRST_MS, END_MS)


def faults(schema: EventSchema, events: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Indices of events that cannot be taken in, by reason; an event has only the first reason that holds.

    wrong_event_name              the name is not its schema's
    missing_session_id            a client's event without a session
    missing_event_id              no identity
    {column}_out_of_range         an instant outside of what `EVENT_TIMESTAMPS_MS` or `CALENDAR_MS` allows
    not_finite                    a number that is none, or infinite
    """
    found: dict[str, NDArray[np.int64]] = {}
    sound = np.ones(events.num_rows, dtype=bool)
    for reason, is_bad in _checks(schema, events):
        if is_bad is None:
            continue
        if len(indices := np.flatnonzero(is_bad & sound)):
            found[reason] = indices
            sound[indices] = False
    return found


def is_dated(events: pa.Table) -> Flags:
    """Whether each event has an instant that the envelope allows."""
    outside = _outside(events["event_timestamp"], *EVENT_TIMESTAMPS_MS)
    return np.ones(events.num_rows, bool) if outside is None else ~outside


def _checks(schema: EventSchema, events: pa.Table) -> Iterator[tuple[str, Flags | None]]:
    """Every reason, and which events have it; None for none of them."""
    yield "wrong_event_name", _unless(pc.equal(events["event_name"], schema.name))
    if schema.topic.startswith("client."):
        yield "missing_session_id", _unless(events["session_id"].is_valid())
    yield "missing_event_id", _unless(pc.not_equal(events["event_id"], ""))
    for column in schema.columns:
        if pa.types.is_timestamp(column.arrow):
            within = EVENT_TIMESTAMPS_MS if column.name == "event_timestamp" else CALENDAR_MS
            yield f"{column.name}_out_of_range", _outside(events[column.name], *within)
    for column in schema.columns:
        if pa.types.is_floating(column.arrow):
            yield "not_finite", _unless(pc.fill_null(pc.is_finite(events[column.name]), True))


def _unless(holds: pa.ChunkedArray) -> Flags | None:
    """Where `holds` is false or null; None when it always holds."""
    if not holds.null_count and pc.all(holds).as_py() in (True, None):
        return None
    unless: Flags = ~pc.fill_null(holds, False).to_numpy()
    return unless


def _outside(instants: pa.ChunkedArray, first_ms: int, end_ms: int) -> Flags | None:
    ms = instants.cast(pa.int64())
    extremes = pc.min_max(ms).as_py()
    if extremes["min"] is None or first_ms <= extremes["min"] <= extremes["max"] < end_ms:
        return None
    within = pc.and_(pc.greater_equal(ms, first_ms), pc.less(ms, end_ms))
    return _unless(pc.fill_null(within, True))
