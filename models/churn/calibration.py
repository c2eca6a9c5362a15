"""Log-odds into probabilities that mean what they say: as they are, by Platt's sigmoid, or by isotonic regression.

Which of the three is chosen on the validation rows, by the log loss on folds that were not fitted: on its own rows the
most flexible always wins. Whole viewers are in a fold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.classification import log_loss

Floats = npt.NDArray[np.float64]

FOLDS = 5
_STEPS = 50
_SMALL = 1e-9
_GROUPS = 1_000


@dataclass(frozen=True)
class Calibration:
    """A rising function of the log-odds.

    `method`: "none" (`numbers` empty), "platt" (slope, offset) or "isotonic" (knots in log-odds, then as many
    probabilities; between two knots it is linear, beyond the ends constant).
    """

    method: str = "none"
    numbers: tuple[float, ...] = ()

    def probabilities(self, log_odds: Floats) -> Floats:
        """[rows] in 0..1."""
        if self.method == "isotonic":
            half = len(self.numbers) // 2
            return np.interp(log_odds, self.numbers[:half], self.numbers[half:])
        slope, offset = self.numbers if self.method == "platt" else (1.0, 0.0)
        return sigmoid(slope * log_odds + offset)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"method": self.method, "numbers": list(self.numbers)}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Calibration":
        """What `as_dict` wrote."""
        return cls(str(written["method"]), tuple(float(number) for number in written["numbers"]))


def sigmoid(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -log_odds))


def platt(log_odds: Floats, truth: Floats) -> Calibration:
    """A sigmoid's slope and offset (Platt 1999), by Newton's method with halved steps (Lin, Lin & Weng, 2007).

    The targets are a little less than 1 and more than 0, as Platt has them, so that rows that are told apart without a
    fault have a finite slope.
    """
    yes = truth.sum()
    target = np.where(truth > 0, (yes + 1) / (yes + 2), 1 / (len(truth) - yes + 2))
    design = np.stack([log_odds, np.ones_like(log_odds)], axis=1)
    answer = np.array([1.0, 0.0])

    def loss(numbers: Floats) -> float:
        line = design @ numbers
        return float((np.logaddexp(0, line) - target * line).sum())

    for _ in range(_STEPS):
        given = sigmoid(design @ answer)
        gradient = design.T @ (given - target)
        curvature = (design * (given * (1 - given))[:, None]).T @ design + 1e-10 * np.eye(2)
        step, best = np.linalg.solve(curvature, gradient), loss(answer)
        while loss(answer - step) > best and np.abs(step).max() > _SMALL:
            step = step / 2
        answer = answer - step
        if np.abs(step).max() < _SMALL:
            break
    return Calibration("platt", (float(answer[0]), float(answer[1])))


def isotonic(log_odds: Floats, truth: Floats) -> Calibration:
    """The rising step function nearest in squares (Zadrozny & Elkan, KDD 2002), by pooling adjacent violators.

    Rows come in at most 1,000 groups of about equal size: steps of fewer rows would be noise. Each pool is a knot at
    its mean log-odds; half a yes and half a no are added to it, so that no probability is 0 or 1.
    """
    edges = np.unique(np.quantile(log_odds, np.linspace(0, 1, _GROUPS + 1)[1:-1]))
    group = np.searchsorted(edges, log_odds, side="right")
    yes, rows, sums = (np.bincount(group, weights) for weights in (truth, np.ones(len(truth)), log_odds))
    there = rows > 0
    pools: list[tuple[float, float, float]] = []  # yes, rows, sum of log-odds
    for one in zip(yes[there], rows[there], sums[there], strict=True):
        pools.append(one)
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            (yes_a, rows_a, sum_a), (yes_b, rows_b, sum_b) = pools[-2:]
            pools[-2:] = [(yes_a + yes_b, rows_a + rows_b, sum_a + sum_b)]
    at = [float(total / count) for _, count, total in pools]
    given = np.maximum.accumulate([(came + 0.5) / (count + 1) for came, count, _ in pools])
    return Calibration("isotonic", (*at, *map(float, given)))


def chosen(log_odds: Floats, truth: Floats, units: npt.NDArray[np.generic]) -> tuple[Calibration, dict[str, float]]:
    """The calibration with the least log loss on folds it was not fitted to, fitted to all rows; and every one's loss.

    Of equal losses the simpler one. Where one class is missing from some fold's rest, none is fitted.
    """
    _, unit = np.unique(units, return_inverse=True)
    fold = unit % FOLDS
    losses = {"none": float(log_loss(truth, Calibration().probabilities(log_odds)).mean())}
    if all(len(np.unique(truth[fold != one])) == 2 for one in np.unique(fold)) and len(np.unique(fold)) > 1:
        for name, fit in (("platt", platt), ("isotonic", isotonic)):
            held = np.empty(len(truth))
            for one in np.unique(fold):
                apart = fold == one
                held[apart] = fit(log_odds[~apart], truth[~apart]).probabilities(log_odds[apart])
            losses[name] = float(log_loss(truth, held).mean())
    best = min(losses, key=lambda name: losses[name])
    fits = {"platt": platt, "isotonic": isotonic}
    return (fits[best](log_odds, truth) if best in fits else Calibration()), losses
