"""What every aggregate is: the states it needs, the parts of its window it reads them over, what it makes of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.keyed import KeyedTotals
from features.states import Bundle, State
from features.windows import Int64s

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """A part of a window, by how far back from the instant it begins and ends.

    An edge `b > 0` back lies at `floor(t - b, hop)` with the hop of the feature's window, the edge 0 back at `t`:
    the newest part ends exactly at the instant, and neighbouring parts meet.
    """

    since_ms: int
    until_ms: int = 0


@dataclass(frozen=True)
class Reading:
    """States read over one span for n rows."""

    bundles: tuple[Bundle, ...]
    is_occupied: Flags
    """[n] whether any event lies in the span."""

    def totals(self, place: int) -> Int64s:
        """The sums of the state at this place among the aggregate's states; [n]."""
        return as_is(self.bundles[place]).values  # type: ignore[no-any-return]

    def keyed(self, place: int = 0) -> KeyedTotals:
        """The sums by key at this place."""
        return as_is(self.bundles[place])  # type: ignore[no-any-return]

    def split(self, first: int) -> tuple["Reading", "Reading"]:
        """The reading of the first `first` states, and that of the others."""
        return Reading(self.bundles[:first], self.is_occupied), Reading(self.bundles[first:], self.is_occupied)


class Aggregate(ABC):
    """Base of the vocabulary. Subclasses are frozen dataclasses: equal where they say the same."""

    @property
    @abstractmethod
    def states(self) -> tuple[State, ...]:
        """States that are read."""

    @property
    @abstractmethod
    def arrow_type(self) -> pa.DataType:
        """Type of the feature."""

    def spans(self, window_ms: int) -> tuple[Span, ...]:
        """Parts of the window that are read; most aggregates read all of it at once."""
        return (Span(window_ms),)

    def mistake(self, window_ms: int) -> str | None:
        """What is wrong with the aggregate, or with a window of this length for it; None if nothing is."""
        return None

    @abstractmethod
    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The feature from one reading for each span; [n]."""


class Amount(Aggregate):
    """An aggregate that is one whole number, 0 for an empty window."""

    @property
    def arrow_type(self) -> pa.DataType:
        """Whole number."""
        return pa.int64()

    @abstractmethod
    def amounts(self, reading: Reading) -> Int64s:
        """The number of each row; [n]."""

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """The number; 0 for an empty window."""
        return pa.array(self.amounts(readings[0]), pa.int64())


def quotient(numerator: npt.NDArray[Any], denominator: Int64s) -> pa.Array:
    """float64; null where the denominator is 0."""
    is_zero = denominator == 0
    return pa.array(numerator / np.where(is_zero, 1, denominator), mask=is_zero)


def offsets_of(lengths: Int64s) -> pa.Array:
    """Offsets of a list or map array whose empty rows are null."""
    return pa.array(np.append(0, np.cumsum(lengths)), pa.int32(), mask=np.append(lengths == 0, False))


def as_is(bundle: Bundle) -> Any:
    """An aggregate knows the bundles of its own states; the type checker cannot."""
    return bundle
