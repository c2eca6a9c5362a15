"""What a log of one kind of event says of whoever had them: how lately, how often, how regularly, for how much.

Recency, frequency and monetary value (Bult & Wansbeek, Marketing Science 14(4), 1995), and how they compare with the
same one's own rhythm. A pure function of the events strictly before an instant. Nothing in it grows with the age of the
log alone: a model that learnt at earlier instants is asked at later ones, and trees know nothing beyond what they saw.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WINDOWS_DAYS = (14, 30, 60, 90, 120, 180, 270)
NAMES = (
    "repeats",
    "recency_days",
    "last_over_age",
    "mean_gap_days",
    "last_gap_days",
    "longest_gap_days",
    "recency_over_mean_gap",
    "recency_over_longest_gap",
    "repeats_per_day",
    *(f"events_in_{days}_days" for days in WINDOWS_DAYS),
    "log_mean_value",
    "log_total_value",
    "log_first_value",
    "log_last_value",
    "mean_count",
)


@dataclass(frozen=True)
class EventLog:
    """Events, by owner and time, at most one of an owner at a time; arrays of [events].

    owner   whose it is, counted from 0
    day     when, in days since any instant
    value   what it was worth, 0 or more
    count   how much of it there was
    """

    owner: Ints
    day: Floats
    value: Floats
    count: Floats

    @classmethod
    def of(cls, owner: Ints, day: Floats, value: Floats, count: Floats) -> "EventLog":
        """The log of events in any order; those of an owner at the same time are one, their values added."""
        order = np.lexsort((day, owner))
        owner, day = owner[order], day[order]
        begins = np.append(True, (owner[1:] != owner[:-1]) | (day[1:] != day[:-1]))[: len(owner)]
        which = np.cumsum(begins) - 1
        values, counts = (np.bincount(which, one[order]).astype(np.float64) for one in (value, count))
        return cls(owner[begins], day[begins], values, counts)

    def before(self, day: float) -> "EventLog":
        """The events strictly before an instant."""
        known = self.day < day
        return EventLog(self.owner[known], self.day[known], self.value[known], self.count[known])


def rhythm(log: EventLog, day: float) -> tuple[Ints, Floats]:
    """What is known at an instant of everyone who had an event before it.

    Returns:
        (owners, [owners] ascending; their numbers, [owners, NAMES]): NaN where there is no gap yet.
    """
    known = log.before(day)
    owners, first = np.unique(known.owner, return_index=True)
    events = np.diff(np.append(first, len(known.owner)))
    if len(owners) == 0:
        return owners, np.empty((0, len(NAMES)))
    last = first + events - 1
    recency, active = day - known.day[last], known.day[last] - known.day[first]
    gaps = np.append(known.day[1:] - known.day[:-1], 0.0)
    gaps[last] = 0.0  # to the next owner's first event
    again = events > 1
    longest = np.where(again, np.maximum.reduceat(gaps, first), np.nan)
    mean_gap = np.divide(active, events - 1, out=np.full(len(owners), np.nan), where=again)
    row = np.repeat(np.arange(len(owners)), events)
    age_days = recency + active
    total, counts = np.bincount(row, known.value), np.bincount(row, known.count)
    columns = [
        events - 1,
        recency,
        active / age_days,
        mean_gap,
        np.where(again, gaps[np.maximum(last - 1, 0)], np.nan),
        longest,
        recency / mean_gap,
        recency / longest,
        (events - 1) / age_days,
        *(np.bincount(row[known.day >= day - days], minlength=len(owners)) for days in WINDOWS_DAYS),
        np.log1p(total / events),
        np.log1p(total),
        np.log1p(known.value[first]),
        np.log1p(known.value[last]),
        counts / events,
    ]
    return owners, np.stack(columns, axis=1).astype(np.float64)
