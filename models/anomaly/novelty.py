"""How new the latest values are: strange is what nothing in a series' own past resembles.

Conformal anomaly detection by the nearest neighbour (Laxhammar & Falkman, "Conformal prediction for distribution-
independent anomaly detection in streaming vessel data", 2010; Burnaev & Ishimtsev, "Conformalized density- and
distance-based anomaly detection in time-series data", 2016), at several scales:

1. For each length m: the distance from the last m values to the nearest m values of the past that do not overlap them.
2. Its rank among the distances before it: the share of them at least as large is a probability p under "nothing new".
   No scale, no distribution and no parameter of the metric comes in, so that one threshold serves all metrics.
3. The strongest evidence of any length, the highest -log10 p, is ranked among those before it in the same way, which
   makes up for having looked five times.

Strictly forward: a value's score is made of it and of values before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.anomaly.errors import NotFiniteError
from models.errors import ConfigurationError

Floats = npt.NDArray[np.float64]


class Recent:
    """The last values of something, oldest first, in one array: at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._room = np.empty(2 * capacity)
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def values(self) -> Floats:
        """What is there; to be read before the next `append`."""
        return self._room[self._begin : self._end]

    def append(self, value: float) -> None:
        """Adds a value, and drops the oldest where there is no room: O(1) amortised."""
        if self._end == len(self._room):
            kept = self.values[-self._capacity + 1 :].copy()
            self._begin, self._end = 0, len(kept)
            self._room[: self._end] = kept
        self._room[self._end] = value
        self._end += 1
        self._begin = max(self._begin, self._end - self._capacity)


class Rank:
    """-log10 of the share of earlier amounts that are at least as large, itself counted: 0 is the commonest."""

    def __init__(self, memory: int, warm_up: int) -> None:
        self._warm_up = warm_up
        self.seen = Recent(memory)

    def score(self, amount: float) -> float:
        """Of an amount, which is remembered. 0 while fewer than `warm_up` were seen."""
        before = self.seen.values
        score = 0.0
        if len(before) >= self._warm_up:
            score = float(np.log10((len(before) + 1) / (np.count_nonzero(before >= amount) + 1)))
        self.seen.append(amount)
        return score


@dataclass(frozen=True)
class NoveltyConfig:
    """`lengths`: how many values are compared at once; `memory`: values that are remembered (8,640 are 30 days of five
    minutes); `warm_up`: distances without which nothing is scored."""

    lengths: tuple[int, ...] = (1, 2, 3, 4, 5)
    memory: int = 8_640
    warm_up: int = 50

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1 or self.memory <= max(self.lengths) or self.warm_up < 1:
            raise ConfigurationError(
                f"lengths {self.lengths}, memory {self.memory}, warm_up {self.warm_up}: lengths are at least 1, "
                "the memory is longer than any of them, and the warm-up at least 1"
            )


class Novelty:
    """One series' past, and how new each next value is."""

    def __init__(self, config: NoveltyConfig | None = None) -> None:
        self.config = config or NoveltyConfig()
        self._values = Recent(self.config.memory)
        self._ranks = [Rank(self.config.memory, self.config.warm_up) for _ in self.config.lengths]
        self._rank = Rank(self.config.memory, self.config.warm_up)

    def score(self, value: float) -> float:
        """How new the series is with this value: 2 is what one value in 100 reaches where nothing changes.

        Raises:
            NotFiniteError: the value is infinite or not a number.
        """
        if not np.isfinite(value):
            raise NotFiniteError(value)
        self._values.append(value)
        evidence = 0.0
        for length, rank in zip(self.config.lengths, self._ranks, strict=True):
            distance = nearest_distance(self._values.values, length)
            if distance is not None:
                evidence = max(evidence, rank.score(distance))
        return self._rank.score(evidence)

    def state(self) -> dict[str, Any]:
        """All that `resume` needs: numbers and lists only."""
        return {
            "lengths": list(self.config.lengths),
            "values": self._values.values.tolist(),
            "distances": [rank.seen.values.tolist() for rank in self._ranks],
            "evidences": self._rank.seen.values.tolist(),
        }

    @classmethod
    def resume(cls, state: dict[str, Any], config: NoveltyConfig | None = None) -> "Novelty":
        """Goes on from what `state` returned.

        Raises:
            ConfigurationError: it was made with other lengths.
        """
        novelty = cls(config)
        if tuple(state["lengths"]) != novelty.config.lengths:
            raise ConfigurationError(
                f"the state is of lengths {state['lengths']}, the configuration of {list(novelty.config.lengths)}; "
                "resume with the lengths it was made with, or start anew"
            )
        for value in state["values"]:
            novelty._values.append(value)
        for rank, distances in zip(novelty._ranks, state["distances"], strict=True):
            for distance in distances:
                rank.seen.append(distance)
        for evidence in state["evidences"]:
            novelty._rank.seen.append(evidence)
        return novelty


def nearest_distance(values: Floats, length: int) -> float | None:
    """The squared distance of the last `length` values to the nearest as many that do not overlap them.

    None where there are none.
    """
    places = len(values) - 2 * length + 1
    if places < 1:
        return None
    distances = np.zeros(places)
    for offset in range(length):
        apart = values[offset : offset + places] - values[len(values) - length + offset]
        distances += apart * apart
    return float(distances.min())


def novelty_scores(values: Sequence[float] | Floats, config: NoveltyConfig | None = None) -> Floats:
    """[values] the score of each value of a series, from it and those before it."""
    novelty = Novelty(config)
    return np.array([novelty.score(float(value)) for value in values])
