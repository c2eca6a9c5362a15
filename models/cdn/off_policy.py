"""What a policy would have earned, told from the log of another one that chose at random.

With `w = policy(a | x) / propensity` of the logged choice `a` in context `x`, and `q` the expected reward of every arm:

    IPS    mean(w r)                                       Horvitz & Thompson, JASA 47, 1952
    SNIPS  sum(w r) / sum(w)                               Swaminathan & Joachims, NeurIPS 2015
    DR     mean(sum_a policy(a | x) q(x, a) + w (r - q))   Dudík, Langford & Li, ICML 2011

IPS is unbiased and as noisy as the weights; SNIPS is a little biased and does not depend on where the reward's zero is;
DR is unbiased with the right propensities and quieter the better `q` is. `q` must not have seen the row's own reward.

Intervals are of the cluster bootstrap (`models.intervals`), all of the same draws.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import ChoiceLogError
from models.intervals import Interval, bootstrap

Floats = npt.NDArray[np.float64]
_SUMS_TO_ONE = 1e-6


@dataclass(frozen=True)
class ChoiceLog:
    """Choices that a policy made at random, and what came of them; arrays of [rows].

    arm         which was chosen, counted from 0
    propensity  the probability with which the policy chose it then, above 0, at most 1
    reward      what came of it
    unit        whose row it is: rows of one unit are no evidence of their own (a viewer, a session)
    """

    arm: npt.NDArray[np.int64]
    propensity: Floats
    reward: Floats
    unit: npt.NDArray[np.generic]

    def __post_init__(self) -> None:
        rows = len(self.arm)
        if rows == 0:
            raise ChoiceLogError("it has no row; log choices with their propensities first")
        for name in ("propensity", "reward", "unit"):
            if len(getattr(self, name)) != rows:
                raise ChoiceLogError(f"{rows} choices came with {len(getattr(self, name))} of {name}; give one each")
        wrong = ~((self.propensity > 0) & (self.propensity <= 1))
        if wrong.any():
            raise ChoiceLogError(
                f"{int(wrong.sum())} of {rows} propensities are not above 0 and at most 1, such as "
                f"{self.propensity[wrong][0]}; leave out what was not chosen at random"
            )
        if not np.isfinite(self.reward).all():
            raise ChoiceLogError(f"{int((~np.isfinite(self.reward)).sum())} of {rows} rewards are not a number")


@dataclass(frozen=True)
class Estimate:
    """A policy's value by each estimator, per row of the log, with 95 % intervals."""

    ips: Interval
    snips: Interval
    dr: Interval
    mean_weight: Interval
    """1 but for noise, if the propensities are what they say and every arm of the policy could be chosen."""
    effective_rows: float
    """Kish's `sum(w)^2 / sum(w^2)`: so many rows of its own would the policy know as much from."""


def importance_weights(log: ChoiceLog, policy: Floats) -> Floats:
    """[rows] how much likelier the policy makes the logged choice than the logging policy did.

    Args:
        log: the choices.
        policy: [rows, arms], probability of each arm in each row's context.

    Raises:
        ChoiceLogError: the policy is not one probability per row and arm that sum to 1, or lacks a logged arm.
    """
    if policy.ndim != 2 or len(policy) != len(log.arm):
        raise ChoiceLogError(f"a policy of shape {policy.shape} is not [{len(log.arm)}, arms]; give a row each")
    if log.arm.min() < 0 or log.arm.max() >= policy.shape[1]:
        raise ChoiceLogError(f"arm {int(log.arm.max())} was chosen, the policy knows 0 to {policy.shape[1] - 1}")
    if (policy < 0).any() or not np.allclose(policy.sum(axis=1), 1, atol=_SUMS_TO_ONE):
        raise ChoiceLogError("a policy's probabilities are negative or do not sum to 1 in every row")
    weights: Floats = policy[np.arange(len(log.arm)), log.arm] / log.propensity
    return weights


def doubly_robust(log: ChoiceLog, policy: Floats, expected: Floats) -> Floats:
    """[rows] whose mean is the policy's value by DR.

    Args:
        log: the choices.
        policy: [rows, arms], probabilities.
        expected: [rows, arms], expected reward of each arm, learnt from other rows.

    Raises:
        ChoiceLogError: as `importance_weights`; or expectations are missing or no numbers.
    """
    weights = importance_weights(log, policy)
    if expected.shape != policy.shape or not np.isfinite(expected).all():
        raise ChoiceLogError(f"expected rewards are not {list(policy.shape)} numbers; received {list(expected.shape)}")
    chosen = expected[np.arange(len(log.arm)), log.arm]
    values: Floats = (policy * expected).sum(axis=1) + weights * (log.reward - chosen)
    return values


def estimate(log: ChoiceLog, policy: Floats, expected: Floats, seed: int) -> Estimate:
    """The value of a policy; arguments as of `doubly_robust`, `seed` of the bootstrap's draws.

    Raises:
        ChoiceLogError: as `doubly_robust`; or the policy never makes a choice that was logged.
    """
    weights = importance_weights(log, policy)
    if not weights.any():
        raise ChoiceLogError("the policy never makes a choice that was logged; nothing can be told of it")
    columns = np.column_stack([weights * log.reward, doubly_robust(log, policy, expected), weights])

    def values(times: Floats) -> Floats:
        ips, dr, mean_weight = times @ columns / times.sum()
        snips = ips / mean_weight if mean_weight > 0 else np.nan  # none of its choices was drawn
        return np.array([ips, snips, dr, mean_weight])

    ips, snips, dr, mean_weight = bootstrap(values, log.unit, seed)
    return Estimate(ips, snips, dr, mean_weight, float(weights.sum() ** 2 / (weights**2).sum()))
