"""From what is expected of each delivery network to a choice of one, and the probability that it had."""

from collections.abc import Sequence

import numpy as np

from models.cdn.policy import GAMMA, draw, inverse_gap, steer_away

HIGHEST_SCORE = 100.0


def probabilities(expected: Sequence[float | None], degraded: Sequence[bool], gamma: float = GAMMA) -> list[float]:
    """Of each network the probability to choose it.

    By inverse gap weighting of the expected scores, then away from networks that are worse than usual just now
    (`models.cdn.policy`). A network of which nothing is expected is taken for as bad as the worst of the others: it is
    tried, and seldom. Where nothing is expected of any, all are alike.

    Args:
        expected: scores, 0 to 100; None where nothing is known.
        degraded: of each network, whether it is worse than usual now.
        gamma: how greedy.
    """
    known = [score for score in expected if score is not None]
    worst = min(known, default=0.0)
    scores = np.array([[worst if score is None else score for score in expected]]) / HIGHEST_SCORE
    chosen = inverse_gap(scores, np.ones(scores.shape, bool), gamma if known else 0.0)
    steered: list[float] = steer_away(chosen, np.array([degraded], bool))[0].tolist()
    return steered


def choose(shares: Sequence[float], generator: np.random.Generator) -> int:
    """The place of the network that is taken, drawn by these probabilities."""
    (place,), _ = draw(np.array([shares]), generator)
    return int(place)
