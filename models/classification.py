"""How well probabilities of a yes or no are: who is ranked first, and whether the probabilities mean what they say.

Every function takes `truth` [rows] of 0 and 1, `scores` or `probabilities` [rows], and `weights` [rows], how often each
row counts: 1 each, or what a bootstrap has drawn. Where one class is missing, what compares the two is NaN.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.intervals import Interval, bootstrap

Floats = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-6  # a probability of 0 or 1 that is wrong once would make every loss infinite
CALIBRATION_BINS = 10
LIFT_SHARE = 0.05
RESAMPLES = 500


def log_loss(truth: Floats, probabilities: Floats) -> Floats:
    """[rows] nats: minus the log of the probability that was given to what came."""
    given = np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return -np.where(truth > 0, np.log(given), np.log1p(-given))


class Ranking:
    """Rows by falling score, ties together: sorted once, measured under many weights."""

    def __init__(self, truth: Floats, scores: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._truth = truth[self._order]
        # The last row of each run of equal scores.
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1) if len(ordered) else np.empty(0, int)

    def _cumulated(self, weights: Floats) -> tuple[Floats, Floats]:
        """(positives, all) so far, at the end of every run of equal scores."""
        ordered = weights[self._order]
        return np.cumsum(ordered * self._truth)[self._ends], np.cumsum(ordered)[self._ends]

    def auc(self, weights: Floats) -> float:
        """Area under the ROC curve: how often a yes scores above a no, ties half (Hanley & McNeil, 1982)."""
        positives, everyone = self._cumulated(weights)
        negatives = everyone - positives
        if not len(positives) or positives[-1] <= 0 or negatives[-1] <= 0:
            return float("nan")
        hits = np.diff(negatives, prepend=0.0)
        return float((hits * (positives + np.append(0.0, positives[:-1]))).sum() / 2 / positives[-1] / negatives[-1])

    def average_precision(self, weights: Floats) -> float:
        """Area under precision over recall, as a sum of steps: no line is drawn between points.

        Interpolating would promise too much (Davis & Goadrich, ICML 2006).
        """
        positives, everyone = self._cumulated(weights)
        if not len(positives) or positives[-1] <= 0:
            return float("nan")
        precision = np.divide(positives, everyone, out=np.zeros_like(positives), where=everyone > 0)
        return float((precision * np.diff(positives, prepend=0.0)).sum() / positives[-1])

    def lift(self, weights: Floats, share: float = LIFT_SHARE) -> float:
        """Yes's among the first `share` of the rows, as a multiple of those among all; ties are shared out evenly."""
        positives, everyone = self._cumulated(weights)
        if not len(positives) or positives[-1] <= 0:
            return float("nan")
        reached = np.interp(share * everyone[-1], np.append(0.0, everyone), np.append(0.0, positives))
        return float(reached / positives[-1] / share)


@dataclass(frozen=True)
class Reliability:
    """Rows in bins of about equal size by probability: what was said of each, and what came."""

    predicted: Floats
    observed: Floats
    weights: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, by weight (Naeini, Cooper & Hauskrecht, AAAI 2015).

        Noise only ever adds to it, and a bootstrap's draws have more of it than the rows: intervals lie too high.
        """
        return float((np.abs(self.predicted - self.observed) * self.weights).sum() / self.weights.sum())


class Bins:
    """Bins of about equal size, cut once by the probabilities."""

    def __init__(self, truth: Floats, probabilities: Floats, bins: int = CALIBRATION_BINS) -> None:
        edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])) if len(truth) else np.empty(0)
        self._of_row = np.searchsorted(edges, probabilities, side="right")
        self._truth, self._probabilities, self._bins = truth, probabilities, len(edges) + 1

    def reliability(self, weights: Floats) -> Reliability:
        """The bins that have a row."""
        sizes, said, came = (
            np.bincount(self._of_row, weights * values, minlength=self._bins).astype(np.float64)
            for values in (np.ones_like(weights), self._probabilities, self._truth)
        )
        there = sizes > 0
        return Reliability(said[there] / sizes[there], came[there] / sizes[there], sizes[there])


@dataclass(frozen=True)
class Classified:
    """How one scorer did; every figure with its interval."""

    auc_pr: Interval
    auc: Interval
    log_loss: Interval
    calibration_error: Interval
    lift_at_5: Interval


def classified(
    truth: Floats, scorers: dict[str, Floats], units: npt.NDArray[np.generic], seed: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Classified], dict[str, Classified]]:
    """Every scorer's figures, and by how much the first is ahead of each other one on the same draws.

    Args:
        truth: [rows] 0 or 1.
        scorers: [rows] probabilities by name, the model's first.
        units: [rows] who each row belongs to; whole units are drawn.
        seed: of the draws.
        resamples: how many draws.

    Returns:
        (figures by scorer, differences by the other scorers; of losses and errors too it is first less other).
    """
    names = list(scorers)
    rankings = [Ranking(truth, scorers[name]) for name in names]
    losses = [log_loss(truth, scorers[name]) for name in names]
    bins = [Bins(truth, scorers[name]) for name in names]

    def measured(weights: Floats) -> Floats:
        total = weights.sum()
        rows = [
            (
                ranking.average_precision(weights),
                ranking.auc(weights),
                float((loss * weights).sum() / total),
                one.reliability(weights).error,
                ranking.lift(weights),
            )
            for ranking, loss, one in zip(rankings, losses, bins, strict=True)
        ]
        own = np.array(rows)
        return np.concatenate([own, own[:1] - own[1:]]).ravel()

    intervals = bootstrap(measured, units, seed, resamples)
    grouped = [Classified(*intervals[at : at + 5]) for at in range(0, len(intervals), 5)]
    return dict(zip(names, grouped, strict=False)), dict(zip(names[1:], grouped[len(names) :], strict=True))
