"""A metric's series as examples: for each value what was known before it, and nothing else.

A context is the last values of its segment, scaled by their own median and spread, so that one network serves metrics
of any unit, and beside it what the seasonal baseline expects and the hour of the week.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.anomaly.baseline import DAY_MS, SeasonalBaseline
from models.anomaly.errors import NotFiniteError
from models.anomaly.predictive import Predictive

Floats = npt.NDArray[np.float64]
FEWEST = 8
"""Values of a segment without which nothing but the prior is known of it."""
SIDE = 7
"""Numbers beside the values: the baseline's expectation, its log width, whether there is one; hour and weekday, as
points on circles."""
_WEEK_MS = 7 * DAY_MS
_NORMAL = 1.4826


@dataclass
class Past:
    """What is kept of a segment: its last values, its baseline."""

    values: list[float] = field(default_factory=list)
    baseline: SeasonalBaseline = field(default_factory=SeasonalBaseline)
    newest_ms: int = 0

    def add(self, at_ms: int, value: float, length: int) -> None:
        """Takes the value that came; `length` of them are kept.

        Raises:
            NotFiniteError: it is infinite or not a number.
        """
        self.baseline.add(at_ms, value)
        self.values = [*self.values[-length + 1 :], value]
        self.newest_ms = at_ms

    def copy(self) -> "Past":
        """One that goes on by itself."""
        return Past(list(self.values), SeasonalBaseline.resume(self.baseline.state()), self.newest_ms)

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"values": self.values, "baseline": self.baseline.state(), "newest_ms": self.newest_ms}

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> Self:
        """What `state` returned."""
        return cls(list(state["values"]), SeasonalBaseline.resume(state["baseline"]), state["newest_ms"])


@dataclass(frozen=True)
class Prior:
    """What is expected of a segment that nobody knows: of all values learnt from, the median and the spread."""

    location: float
    scale: float

    @classmethod
    def of(cls, values: Floats) -> Self:
        """The prior of these values."""
        location, scale = centre(values)
        return cls(location, scale)


@dataclass(frozen=True)
class Contexts:
    """n contexts. `windows` [n, length] and `side` [n, SIDE] are scaled; the rest is in the metric's unit."""

    windows: npt.NDArray[np.float32]
    side: npt.NDArray[np.float32]
    scale: Predictive
    """Median and spread that a window was scaled by."""
    seasonal: Predictive
    last_value: Predictive
    is_known: npt.NDArray[np.bool_]
    """Whether there were enough values; else all that is expected is the prior."""

    def __len__(self) -> int:
        return len(self.windows)


class ContextBuilder:
    """Collects contexts one by one."""

    def __init__(self, length: int, prior: Prior) -> None:
        self._length, self._prior = length, prior
        self._windows: list[Floats] = []
        self._side: list[list[float]] = []
        self._pairs: list[tuple[float, ...]] = []
        self._known: list[bool] = []

    def append(self, past: Past, at_ms: int) -> None:
        """The context of a value at `at_ms`, of what came before."""
        prior = (self._prior.location, self._prior.scale)
        is_known = len(past.values) >= FEWEST
        self._known.append(is_known)
        if not is_known:
            self._windows.append(np.zeros(self._length))
            self._side.append([0.0, 0.0, 0.0, *_clock(at_ms)])
            self._pairs.append(prior * 3)
            return
        values = np.array(past.values[-self._length :])
        location, scale = centre(values)
        expected = past.baseline.expected(at_ms)
        seasonal = (expected.value, expected.deviation) if expected else (location, scale)
        # A baseline of a constant metric is as narrow as its resolution; one odd value must not cost the earth.
        seasonal = (seasonal[0], max(seasonal[1], 0.05 * scale))
        padded = np.concatenate([np.full(self._length - len(values), values[0]), values])
        self._windows.append((padded - location) / scale)
        ahead = (seasonal[0] - location) / scale
        self._side.append([ahead, math.log(seasonal[1] / scale), float(expected is not None), *_clock(at_ms)])
        steps = _NORMAL * _median(np.abs(values[1:] - values[:-1]))
        self._pairs.append((location, scale, *seasonal, float(values[-1]), max(steps, 0.05 * scale)))

    def built(self) -> Contexts:
        """All of them."""
        pairs = np.array(self._pairs).reshape(-1, 6).T
        limit = 50.0  # spreads from the window: what is further out says no more
        return Contexts(
            np.clip(np.array(self._windows).reshape(-1, self._length), -limit, limit).astype(np.float32),
            np.clip(np.array(self._side).reshape(-1, SIDE), -limit, limit).astype(np.float32),
            Predictive(pairs[0], pairs[1]),
            Predictive(pairs[2], pairs[3]),
            Predictive(pairs[4], pairs[5]),
            np.array(self._known, dtype=np.bool_),
        )


def contexts_of(
    segments: npt.NDArray[np.object_],
    at_ms: npt.NDArray[np.int64],
    values: Floats,
    pasts: dict[str, Past],
    length: int,
    prior: Prior,
) -> Contexts:
    """[n] the context of each value, in the order given; `pasts` goes on with them, segment by segment in time.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    if not np.isfinite(values).all():
        raise NotFiniteError(float(values[~np.isfinite(values)][0]))
    order = np.lexsort((at_ms, segments.astype(str)))
    builder = ContextBuilder(length, prior)
    for row in order.tolist():
        past = pasts.setdefault(segments[row], Past())
        builder.append(past, int(at_ms[row]))
        past.add(int(at_ms[row]), float(values[row]), length)
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return taken(builder.built(), back)


def taken(contexts: Contexts, rows: npt.NDArray[Any]) -> Contexts:
    """These contexts alone."""

    def of(one: Predictive) -> Predictive:
        return Predictive(one.location[rows], one.scale[rows])

    return Contexts(
        contexts.windows[rows],
        contexts.side[rows],
        of(contexts.scale),
        of(contexts.seasonal),
        of(contexts.last_value),
        contexts.is_known[rows],
    )


def centre(values: Floats) -> tuple[float, float]:
    """Median and a spread that is never 0: the median absolute deviation, a tenth of the mean one where that is 0."""
    location = _median(values)
    apart = np.abs(values - location)
    spread = _NORMAL * _median(apart)
    floor = 0.1 * float(np.mean(apart)) + 1e-6 * abs(location) + 1e-6
    return location, max(spread, floor)


def _median(values: Floats) -> float:
    """As `numpy.median` has it, which takes ten times as long for so few."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else float(ordered[half - 1] + ordered[half]) / 2


def _clock(at_ms: int) -> list[float]:
    day, week = 2 * math.pi * (at_ms % DAY_MS) / DAY_MS, 2 * math.pi * (at_ms % _WEEK_MS) / _WEEK_MS
    return [math.sin(day), math.cos(day), math.sin(week), math.cos(week)]
