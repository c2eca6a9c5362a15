"""Logistic regression: the baseline that a churn model has to beat, fitted to the same numbers of the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.churn.calibration import sigmoid
from models.churn.columns import Values

Floats = npt.NDArray[np.float64]

_PENALTY = 1.0  # ridge on standardised columns, in rows
_STEPS, _SMALL = 50, 1e-8
_FARTHEST = 5.0  # standard deviations that one number may be off: a line has no use for outliers


@dataclass(frozen=True)
class LogisticRegression:
    """A line of standardised numbers; what is unknown is at its mean, and has a weight of its own."""

    means: Floats
    scales: Floats
    weights: Floats
    """[2 x columns + 1]: of the numbers, of their being unknown, and the offset."""

    @classmethod
    def fit(cls, values: Values, truth: Floats, row_weights: Floats) -> Self:
        """Maximum likelihood with a ridge penalty, by iteratively reweighted least squares (McCullagh & Nelder, 1989).

        Args:
            values: [rows, columns]; NaN where unknown.
            truth: [rows] 0 or 1.
            row_weights: [rows] how many rows each stands for.
        """
        known = np.isfinite(values)
        counts = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, values, 0).astype(np.float64)
        means = filled.sum(axis=0) / counts
        spread = np.sqrt((np.where(known, filled - means, 0) ** 2).sum(axis=0) / counts)
        scales = np.where(spread > 0, spread, 1.0)
        fresh = cls(means, scales, np.zeros(2 * len(means) + 1))
        design = fresh._design(values)
        weights = fresh.weights.copy()
        rate = np.clip(np.average(truth, weights=row_weights), 1e-6, 1 - 1e-6)
        weights[-1] = np.log(rate / (1 - rate))
        penalty = np.full(len(weights), _PENALTY)
        penalty[-1] = 0

        def loss(candidate: Floats) -> float:
            line = design @ candidate
            return float((row_weights * (np.logaddexp(0, line) - truth * line)).sum() + penalty @ candidate**2 / 2)

        for _ in range(_STEPS):
            given = sigmoid(design @ weights)
            gradient = design.T @ (row_weights * (given - truth)) + penalty * weights
            curvature = (design * (row_weights * given * (1 - given))[:, None]).T @ design
            step = np.linalg.solve(curvature + np.diag(penalty + 1e-9), gradient)
            before = loss(weights)
            while loss(weights - step) > before and np.abs(step).max() > _SMALL:
                step = step / 2
            weights = weights - step
            if np.abs(step).max() < _SMALL:
                break
        return cls(means, scales, weights)

    def probabilities(self, values: Values) -> Floats:
        """[rows] of a yes."""
        return sigmoid(self._design(values) @ self.weights)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: getattr(self, name).tolist() for name in ("means", "scales", "weights")}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Self:
        """What `as_dict` wrote."""
        return cls(*(np.asarray(written[name], np.float64) for name in ("means", "scales", "weights")))

    def _design(self, values: Values) -> Floats:
        known = np.isfinite(values)
        apart = np.where(known, (values - self.means) / self.scales, 0.0).clip(-_FARTHEST, _FARTHEST)
        return np.concatenate([apart, ~known, np.ones((len(values), 1))], axis=1)
