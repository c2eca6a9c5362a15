"""From expected qualities to the probabilities of arms: the best one mostly, the others the rarer the worse they seem.

Inverse gap weighting: with `K` arms on offer and the gap `g(a)` of an arm's expected reward to the best one's,

    p(a) = 1 / (K + gamma g(a))   for every arm but the best, which has the rest

(Abe & Long, ICML 1999; Foster & Rakhlin, "Beyond UCB", ICML 2020: SquareCB). Every arm on offer keeps at least
`1 / (K + gamma)` if rewards lie within 0 to 1, so that weights of a log are bounded and any other policy can be judged
by it. `gamma` 0 is uniform; the larger, the greedier.
"""

import numpy as np
import numpy.typing as npt

from models.cdn.off_policy import Floats
from models.errors import ConfigurationError

GAMMA = 200.0
"""How greedy, unless it is configured otherwise: an arm that is 10 points of 100 worse has 1 chance in 20 + K."""
PROBE_SHARE = 0.02
"""What all degraded networks together still get: by it their recovery is seen."""


def inverse_gap(expected: Floats, offered: npt.NDArray[np.bool_], gamma: float) -> Floats:
    """[rows, arms] probabilities; 0 for arms that are not on offer.

    Args:
        expected: [rows, arms], expected reward of each arm, higher is better; of arms that are not offered anything.
        offered: [rows, arms], whether the arm can be chosen; at least one a row.
        gamma: how greedy, per unit of reward; 0 or more.

    Raises:
        ConfigurationError: `gamma` is negative, or a row has no arm on offer.
    """
    if not gamma >= 0:
        raise ConfigurationError(f"gamma is {gamma}; a policy explores with 0 (uniform) or more (greedier)")
    if not offered.any(axis=1).all():
        raise ConfigurationError("a choice has no arm on offer; give it at least one")
    known = np.where(offered, expected, -np.inf)
    best = known.argmax(axis=1)
    rows = np.arange(len(best))
    gap = np.where(offered, known[rows, best][:, None] - expected, 0)
    count = offered.sum(axis=1, keepdims=True)
    probabilities: Floats = np.where(offered, 1 / (count + gamma * gap), 0.0)
    probabilities[rows, best] = 0
    probabilities[rows, best] = 1 - probabilities.sum(axis=1)
    return probabilities


def steer_away(probabilities: Floats, degraded: npt.NDArray[np.bool_], probe_share: float = PROBE_SHARE) -> Floats:
    """[rows, arms] the same policy while some arms are degraded: they share `probe_share`, or what they had if less.

    Where every arm with a probability is degraded there is nowhere better to go: the row stays as it is.

    Args:
        probabilities: [rows, arms], summing to 1.
        degraded: [rows, arms] or [arms].
        probe_share: 0 to 1.
    """
    bad = np.where(degraded, probabilities, 0.0)
    bad_share = bad.sum(axis=1, keepdims=True)
    good_share = np.where(degraded, 0.0, probabilities).sum(axis=1, keepdims=True)  # 1 - bad_share may round to more
    kept = np.minimum(bad_share, probe_share)
    has_way_out = (good_share > 0) & (bad_share > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(degraded, probabilities * kept / bad_share, probabilities * (1 - kept) / good_share)
    steered: Floats = np.where(has_way_out, moved, probabilities)
    return steered


def draw(probabilities: Floats, generator: np.random.Generator) -> tuple[npt.NDArray[np.int64], Floats]:
    """[rows] the arms chosen, and [rows] the probability that each had: what has to be logged with it."""
    upto = probabilities.cumsum(axis=1)
    at = generator.random(len(probabilities))[:, None] * upto[:, -1:]
    arms = (upto > at).argmax(axis=1)
    return arms, probabilities[np.arange(len(arms)), arms]
