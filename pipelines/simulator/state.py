"""What changes from one playback to the next: tastes, what each viewer would go on with, how happy a household is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulator.platform import Platform

_REMEMBERED = 16
NOTHING = -1


@dataclass
class ViewerState:
    """Per viewer: tastes (logits), the episode or half-seen title to go on with, what was finished lately.

    `tastes`: (viewers, genres). `up_next`: content index or `NOTHING`, with the position to start from.
    `busy_until_ms`: no session starts before. `finished`: (viewers, 16), a ring of content indices.
    """

    tastes: NDArray[np.float64]
    up_next: NDArray[np.int32]
    up_next_position_ms: NDArray[np.int64]
    busy_until_ms: NDArray[np.int64]
    finished: NDArray[np.int32]
    finished_count: NDArray[np.int64]

    @classmethod
    def at_start(cls, platform: Platform) -> "ViewerState":
        """Nobody has watched anything yet."""
        viewers = len(platform.viewers)
        return cls(
            tastes=platform.viewers.tastes.copy(),
            up_next=np.full(viewers, NOTHING, dtype=np.int32),
            up_next_position_ms=np.zeros(viewers, dtype=np.int64),
            busy_until_ms=np.zeros(viewers, dtype=np.int64),
            finished=np.full((viewers, _REMEMBERED), NOTHING, dtype=np.int32),
            finished_count=np.zeros(viewers, dtype=np.int64),
        )

    def drift(self, standard_deviation: float, random: np.random.Generator) -> None:
        """Move every taste by one day's step of a random walk in logit space."""
        self.tastes += random.normal(0.0, standard_deviation, self.tastes.shape)

    def remember_finished(self, viewers: NDArray[np.int64], content: NDArray[np.int32]) -> None:
        """Note what has just been finished; each viewer at most once a call."""
        self.finished[viewers, self.finished_count[viewers] % _REMEMBERED] = content
        self.finished_count[viewers] += 1


def taste_shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(viewers, genres) logits -> shares that sum to 1 (softmax)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
