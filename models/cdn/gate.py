"""Whether a routing policy may be published: only if the log of choices says that it beats the one that runs."""

from dataclasses import dataclass

from models.cdn.off_policy import ChoiceLog, Estimate, Floats, doubly_robust, estimate
from models.intervals import Interval, bootstrap_means

LEAST_EFFECTIVE_ROWS = 100


@dataclass(frozen=True)
class Verdict:
    """May the candidate be published, and why."""

    gain: Interval
    """The candidate's value less the running policy's, both by DR on the same draws of the same rows."""
    candidate: Estimate
    running: Estimate
    objections: tuple[str, ...]
    """Every reason against it; empty where it may be published."""

    @property
    def may_publish(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.objections


def judge(log: ChoiceLog, candidate: Floats, running: Floats, expected: Floats, seed: int) -> Verdict:
    """Compare two policies on a log that neither has learnt from.

    Args:
        log: choices with propensities, of whichever policy ran.
        candidate, running: [rows, arms], each policy's probabilities in the log's contexts.
        expected: [rows, arms], expected reward of each arm, learnt from other rows.
        seed: of the bootstrap's draws.

    Raises:
        ChoiceLogError: the log or a policy is no such thing (`models.cdn.off_policy`).
    """
    ahead = doubly_robust(log, candidate, expected) - doubly_robust(log, running, expected)
    (gain,) = bootstrap_means(ahead[:, None], log.unit, seed)
    value = estimate(log, candidate, expected, seed)
    return Verdict(gain, value, estimate(log, running, expected, seed), tuple(_objections(value, gain)))


def cannot_tell(value: Estimate) -> list[str]:
    """Why the log says too little of a policy, or nothing that can be believed; empty where it says enough."""
    found = []
    if value.effective_rows < LEAST_EFFECTIVE_ROWS:
        found.append(
            f"the log says as much of it as {value.effective_rows:.0f} rows of its own would, needed are "
            f"{LEAST_EFFECTIVE_ROWS}: let the running policy explore more, or longer"
        )
    # Four standard errors: one in twenty policies would be beyond two by chance.
    if abs(value.mean_weight.mean - 1) > value.mean_weight.high - value.mean_weight.low:
        found.append(
            f"its weights have a mean of {value.mean_weight.mean:.3f} (95 %: {value.mean_weight.low:.3f} to "
            f"{value.mean_weight.high:.3f}) instead of 1: the logged propensities are wrong, or it chooses what could "
            "not be chosen"
        )
    return found


def _objections(value: Estimate, gain: Interval) -> list[str]:
    found = cannot_tell(value)
    if not gain.above_zero:
        found.append(
            f"its value is not above the running policy's by more than noise: {gain.mean:+.4g} "
            f"(95 %: {gain.low:+.4g} to {gain.high:+.4g})"
        )
    return found
