"""What a metric is expected to be at an hour of the week, from its last 30 days: a rolling seasonal baseline.

Values are kept as tiles, one an hour: their number, sum and sum of squares. A tile of the present is 30 days old at
most, so there are at most 721 of them, and a weekday's hour is in four or five.

- **O(1) a value**: one tile is added to, and each tile is dropped once.
- **Mergeable, in any order**: tiles of the same hour add up. Sums are whole multiples of `RESOLUTION`, as unbounded
  integers, so that the same values give the same baseline to the bit, however they were grouped, ordered or resumed.
- **Robust**: the expectation is the median of the tiles' means, the band comes from the median of their deviations
  from it (Hampel, "The influence curve and its role in robust estimation", 1974). An incident of some hours is in one
  tile of each cell it touches, and a median of three bears one.
- **Strictly forward**: an expectation at an instant reads tiles of hours that had ended by then, so neither the future
  nor the trouble of the hour comes in.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from statistics import median
from typing import Any

import numpy as np

from models.anomaly.errors import NotFiniteError
from models.anomaly.predictive import Predictive
from models.errors import ConfigurationError

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WINDOW_MS = 30 * DAY_MS
_HOURS_KEPT = WINDOW_MS // HOUR_MS
RESOLUTION = 1e-6
"""Values are rounded to it; in the metric's own unit."""
_HOURS_A_WEEK, _HOURS_A_DAY = 168, 24
_FEWEST_TILES = 3  # a median of three bears one incident
_NORMAL = 1.4826  # a median absolute deviation, times this, is a normal distribution's standard deviation
_LEAST_PROBABILITY = 1e-300  # its logarithm is still a number
_FORMAT = 1


@dataclass(frozen=True)
class Tile:
    """An hour's values, in multiples of `RESOLUTION` and of its square."""

    count: int
    total: int
    squares: int

    def __add__(self, other: "Tile") -> "Tile":
        return Tile(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Of the hour's values."""
        return self.total / self.count * RESOLUTION

    @property
    def variance(self) -> float:
        """Of the hour's values around their mean."""
        return max(self.squares * self.count - self.total**2, 0) / self.count**2 * RESOLUTION**2


@dataclass(frozen=True)
class Expected:
    """What a value should be: `value`, and the deviation of single values around it, both in the metric's unit."""

    value: float
    deviation: float
    tiles: int
    """How many hours that is known from."""

    def band(self, deviations: float) -> tuple[float, float]:
        """The lowest and the highest value within so many deviations."""
        return self.value - deviations * self.deviation, self.value + deviations * self.deviation

    def surprise(self, value: float) -> float:
        """-log10 of the probability of a value at least as far off: under Student's t, for tails are heavy."""
        tail = Predictive(np.array([self.value]), np.array([self.deviation])).tail(np.array([value]))
        return -math.log10(max(float(tail[0]), _LEAST_PROBABILITY))


class SeasonalBaseline:
    """A metric's last 30 days, by hour."""

    def __init__(self, tiles: Mapping[int, Tile] | None = None) -> None:
        self._newest = max(tiles or {}, default=0)
        self._tiles = {hour: tile for hour, tile in (tiles or {}).items() if not self._is_old(hour)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeasonalBaseline) and self._tiles == other._tiles

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def tiles(self) -> int:
        """How many hours are kept."""
        return len(self._tiles)

    def add(self, at_ms: int, value: float) -> None:
        """Adds a value. One older than 30 days before the newest hour's end is forgotten at once.

        Raises:
            NotFiniteError: the value is infinite or not a number.
        """
        if not math.isfinite(value):
            raise NotFiniteError(value)
        hour = at_ms // HOUR_MS
        if hour > self._newest or not self._tiles:
            self._move_to(hour)
        if self._is_old(hour):
            return
        units = round(value / RESOLUTION)
        tile = Tile(1, units, units * units)
        self._tiles[hour] = self._tiles[hour] + tile if hour in self._tiles else tile

    def merged(self, other: "SeasonalBaseline") -> "SeasonalBaseline":
        """The baseline of both one's values."""
        tiles = dict(self._tiles)
        for hour, tile in other._tiles.items():
            tiles[hour] = tiles[hour] + tile if hour in tiles else tile
        return SeasonalBaseline(tiles)

    def expected(self, at_ms: int) -> Expected | None:
        """What a value at this instant should be, of the hours that had ended by then and the 30 days before it.

        It is known from this weekday's hour if there are three of them, else from this hour of all days, else from
        all hours; None under three hours.
        """
        hour = at_ms // HOUR_MS
        for period in (_HOURS_A_WEEK, _HOURS_A_DAY, 1):
            tiles = self._before(hour, period)
            if len(tiles) >= _FEWEST_TILES:
                return _expected(tiles, self._before(hour, min(period, _HOURS_A_DAY)))
        return None

    def state(self) -> dict[str, Any]:
        """All that `resume` needs, as JSON has it."""
        return {"format": _FORMAT, "tiles": {str(hour): _numbers(tile) for hour, tile in sorted(self._tiles.items())}}

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> "SeasonalBaseline":
        """Goes on from what `state` returned.

        Raises:
            ConfigurationError: it is of another format.
        """
        if state.get("format") != _FORMAT:
            raise ConfigurationError(
                f"a baseline of format {state.get('format')!r}; this version reads {_FORMAT}; build it from values"
            )
        return cls({int(hour): Tile(*numbers) for hour, numbers in state["tiles"].items()})

    def _before(self, hour: int, period: int) -> list[Tile]:
        """Tiles of earlier hours that are a multiple of `period` away, of the 30 days before `hour`."""
        hours = range(hour - period, hour - _HOURS_KEPT - 1, -period)
        return [self._tiles[earlier] for earlier in hours if earlier in self._tiles]

    def _is_old(self, hour: int) -> bool:
        return hour < self._newest - _HOURS_KEPT

    def _move_to(self, hour: int) -> None:
        """Makes this the newest hour and drops what is too old for it: one look per hour that has passed."""
        if self._tiles:
            for passed in range(self._newest - _HOURS_KEPT, hour - _HOURS_KEPT):
                self._tiles.pop(passed, None)
        self._newest = hour


def baseline_of(values: Iterable[tuple[int, float]]) -> SeasonalBaseline:
    """The baseline of (instant in ms, value) in any order."""
    baseline = SeasonalBaseline()
    for at_ms, value in values:
        baseline.add(at_ms, value)
    return baseline


def baseline_of_slots(counts: Sequence[float], at_ms: int) -> SeasonalBaseline:
    """The baseline of a metric that is counted by the hour, of the 30 days before the hour of an instant.

    `counts`: one value for each hour of 31 days, at the place of the hour's number since 1970 modulo their number. An
    hour without anything is one of 0, from the first one on that has something.
    """
    now = at_ms // HOUR_MS
    hours = [(hour, float(counts[hour % len(counts)])) for hour in range(now - _HOURS_KEPT, now)]
    known = dropwhile(lambda one: one[1] == 0, hours)
    return baseline_of((hour * HOUR_MS, count) for hour, count in known)


def _expected(tiles: list[Tile], wider: list[Tile]) -> Expected:
    """From the tiles of the cell; the spread also from `wider` ones, each around their own median."""
    value = median(tile.mean for tile in tiles)
    around = median(tile.mean for tile in wider)
    between = _NORMAL * max(
        median(abs(tile.mean - value) for tile in tiles), median(abs(tile.mean - around) for tile in wider)
    )
    within = median(tile.variance for tile in wider)
    # What cannot be told apart is no deviation: a constant metric gets a band of a few units of resolution.
    return Expected(value, math.hypot(between, math.sqrt(within), RESOLUTION), len(tiles))


def _numbers(tile: Tile) -> list[int]:
    return [tile.count, tile.total, tile.squares]
