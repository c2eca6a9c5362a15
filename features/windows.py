"""Window arithmetic: which events a value at an instant is made of. Everything is int64 milliseconds, UTC.

The value of a feature with window `w` at instant `t` aggregates the events with
`floor(t - w, hop) <= event_timestamp < t`: the head is exact to the millisecond, the tail moves in hops, so
that tiles one hop long hold all that a stream has to keep (the "sawtooth" windows of Chronon).

Every function takes and gives either a Python int or an int64 array of any shape.
"""

from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Instant = TypeVar("Instant", int, Int64s)

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Cadence(StrEnum):
    """How often a group has a new value."""

    EVENT = "event"
    HOURLY = "hourly"
    DAILY = "daily"

    @property
    def step_ms(self) -> int:
        """Distance of two boundaries; an event group has one at every millisecond."""
        return _STEP_MS[self]

    @property
    def default_delay_ms(self) -> int:
        """How long after a boundary a service can count on the value."""
        return _DEFAULT_DELAY_MS[self]


_STEP_MS = {Cadence.EVENT: 1, Cadence.HOURLY: HOUR_MS, Cadence.DAILY: DAY_MS}
_DEFAULT_DELAY_MS = {Cadence.EVENT: 2 * SECOND_MS, Cadence.HOURLY: 15 * MINUTE_MS, Cadence.DAILY: 3 * HOUR_MS}


def floor_ms(instant_ms: Instant, step_ms: int) -> Instant:
    """Last multiple of `step_ms` at or before the instant, before 1970 too."""
    return instant_ms - instant_ms % step_ms


def hop_ms(window_ms: int) -> int:
    """Step in which the tail of a window moves: 5 min under 12 h, 1 h up to 12 d, 1 d above."""
    if window_ms < 12 * HOUR_MS:
        return 5 * MINUTE_MS
    if window_ms <= 12 * DAY_MS:
        return HOUR_MS
    return DAY_MS


def edge_ms(instant_ms: Instant, back_ms: int, window_ms: int) -> Instant:
    """Edge of a window, or of a part of it, that lies `back_ms` before an instant: whole hops but for the head."""
    return floor_ms(instant_ms - back_ms, hop_ms(window_ms)) if back_ms else instant_ms


def valued_at_ms(asked_at_ms: Instant, cadence: Cadence, delay_ms: int) -> Instant:
    """Instant of the value that a service asked at `asked_at_ms` would have given."""
    return floor_ms(asked_at_ms - delay_ms, cadence.step_ms)


def tile_length_ms(window_ms: int, cadence: Cadence) -> int:
    """Longest tile whose edges meet every window start and, but for event groups, every boundary."""
    if cadence is Cadence.EVENT:
        return hop_ms(window_ms)
    return min(hop_ms(window_ms), cadence.step_ms)
