"""How an amount changes in time: against earlier days, from one half of a window to the next, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa

from features.aggregates.base import Aggregate, Amount, Flags, Numbers, Reading, Span, quotient
from features.aggregates.totals import Mean
from features.states import State
from features.windows import DAY_MS, hop_ms

_LEAST_POINTS = 3


@dataclass(frozen=True)
class Trend(Aggregate):
    """An amount now over its mean in the same window on the `days` days before; null where that mean is 0."""

    of: Amount
    days: int = 7

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the amount."""
        return self.of.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def spans(self, window_ms: int) -> tuple[Span, ...]:
        """Now, and the same clock time (UTC) on each day before."""
        return tuple(Span(day * DAY_MS + window_ms, day * DAY_MS) for day in range(self.days + 1))

    def mistake(self, window_ms: int) -> str | None:
        """There are days to compare with."""
        return None if self.days > 0 else f"a trend against {self.days} days is none; give 1 or more"

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Amount times days over the sum of the days before: whole numbers until the one division."""
        now, *before = (self.of.amounts(reading) for reading in readings)
        return quotient(now * self.days, np.sum(before, axis=0, dtype=np.int64))


@dataclass(frozen=True)
class Delta(Aggregate):
    """An amount or a mean in the newer half of the window less that in the older half, in units of `unit`.

    Null for an empty window; of a mean, also where one of the halves has none.
    """

    of: Amount | Mean
    unit: int = 1

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the amount."""
        return self.of.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def spans(self, window_ms: int) -> tuple[Span, ...]:
        """The newer half and the older half."""
        return (Span(window_ms // 2), Span(window_ms, window_ms // 2))

    def mistake(self, window_ms: int) -> str | None:
        """The window can be halved where its tail moves."""
        if self.unit <= 0:
            return f"a unit of {self.unit} is none; give a whole number above 0"
        step_ms = 2 * hop_ms(window_ms)
        return f"window {window_ms} ms has no halves; give a multiple of {step_ms} ms" if window_ms % step_ms else None

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Newer less older."""
        (newer, older), is_point = _points(self.of, readings)
        return pa.array((newer - older) / self.unit, mask=~is_point.all(axis=0))


@dataclass(frozen=True)
class Slope(Aggregate):
    """Least-squares slope of an amount or a mean over the complete blocks of the window, counted back from the instant.

    In units of `unit` a block; positive where it grows. Every block is a point, that of an amount also where nothing
    happened in it (0), that of a mean only where there is one. Null under 3 points, and for an empty window.
    """

    of: Amount | Mean
    block_ms: int
    unit: int = 1

    @property
    def states(self) -> tuple[State, ...]:
        """Those of the amount."""
        return self.of.states

    @property
    def arrow_type(self) -> pa.DataType:
        """Real number."""
        return pa.float64()

    def spans(self, window_ms: int) -> tuple[Span, ...]:
        """The blocks, newest first."""
        return tuple(Span(back + self.block_ms, back) for back in range(0, window_ms, self.block_ms))

    def mistake(self, window_ms: int) -> str | None:
        """The window is of three whole blocks or more, whose edges lie where its tail moves."""
        if self.unit <= 0 or self.block_ms <= 0:
            return f"blocks of {self.block_ms} ms in units of {self.unit} are none; give whole numbers above 0"
        if window_ms % self.block_ms or window_ms < _LEAST_POINTS * self.block_ms:
            return f"window {window_ms} ms is not {_LEAST_POINTS} or more blocks of {self.block_ms} ms; make it so"
        hop = hop_ms(window_ms)
        if self.block_ms % hop:
            return (
                f"a block of {self.block_ms} ms is no multiple of {hop} ms, the steps of its window's tail; make it so"
            )
        return None

    def finish(self, readings: Sequence[Reading]) -> pa.Array:
        """Sum of (x - mean x) (y - mean y) over that of (x - mean x)**2, where x counts the blocks."""
        y, is_point = _points(self.of, readings)
        points = is_point.sum(axis=0)
        if isinstance(self.of, Amount):
            # Whole numbers until the one division: n * sum(xy) - sum(x) * sum(y), over n * sum(xx) - sum(x)**2.
            x = np.arange(len(readings))[::-1, np.newaxis]
            size = len(readings)
            above = size * (x * y).sum(axis=0) - x.sum() * y.sum(axis=0)
            below = np.full(len(points), (size * (x * x).sum() - x.sum() ** 2) * self.unit)
        else:
            x = np.where(is_point, np.arange(len(readings))[::-1, np.newaxis], 0)
            count = np.maximum(points, 1)
            dx = np.where(is_point, x - x.sum(axis=0) / count, 0.0)
            dy = np.where(is_point, y - _total(np.where(is_point, y, 0.0)) / count, 0.0)
            above, below = _total(dx * dy), _total(dx * dx) * self.unit
        is_there = points >= _LEAST_POINTS
        return pa.array(above / np.where(is_there, below, 1), mask=~is_there)


def _total(of_readings: Numbers) -> Numbers:
    """Sum over the readings, [n] of [readings, n], one after the other.

    In which order NumPy adds them depends on how many rows there are, and so does the last bit.
    """
    return reduce(np.add, of_readings)


def _points(of: Amount | Mean, readings: Sequence[Reading]) -> tuple[np.ndarray, Flags]:
    """(value, whether it counts) of each reading, [readings, n] each: an amount counts unless all of them are empty."""
    if isinstance(of, Mean):
        means = [of.means(reading) for reading in readings]
        return np.stack([values for values, _ in means]), np.stack([there for _, there in means])
    is_occupied = np.any([reading.is_occupied for reading in readings], axis=0)
    return np.stack([of.amounts(reading) for reading in readings]), np.stack([is_occupied] * len(readings))
