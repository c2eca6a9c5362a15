"""Calibration: against scikit-learn's isotonic regression, and chosen by rows that it was not fitted to."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from models.churn.calibration import Calibration, chosen, isotonic, platt, sigmoid


def drawn(n: int, seed: int, slope: float = 1.0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds, and what comes where the truth is a sigmoid with this slope and offset."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(-1, 2, n)
    return log_odds, (random.random(n) < sigmoid(slope * log_odds + offset)).astype(float)


def test_platt_finds_the_slope_that_is_there() -> None:
    log_odds, truth = drawn(20_000, 1, slope=0.5, offset=-0.3)
    assert platt(log_odds, truth).numbers == pytest.approx((0.5, -0.3), abs=0.04)


def test_platt_is_finite_where_rows_are_told_apart_without_a_fault() -> None:
    numbers = platt(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])).numbers
    assert np.isfinite(numbers).all()
    assert numbers[0] > 0


def test_isotonic_is_scikit_learns_but_for_the_half_that_is_added() -> None:
    """With many rows in a pool the half does not show."""
    log_odds, truth = drawn(900, 2)
    log_odds = np.round(log_odds)  # few values, many rows each
    ours = isotonic(log_odds, truth).probabilities(np.unique(log_odds))
    theirs = IsotonicRegression().fit(log_odds, truth).predict(np.unique(log_odds))
    _, counts = np.unique(log_odds, return_counts=True)
    assert (np.diff(ours) >= 0).all()
    assert (ours > 0).all()
    assert (ours < 1).all()
    assert ours[counts > 60] == pytest.approx(theirs[counts > 60], abs=0.02)


@pytest.mark.parametrize(
    ("slope", "bend", "wanted"), [(1.0, False, "none"), (0.3, False, "platt"), (1.0, True, "isotonic")]
)
def test_what_is_needed_is_chosen(slope: float, bend: bool, wanted: str) -> None:
    random = np.random.default_rng(3)
    log_odds, truth = drawn(6_000, 3, slope=slope)
    if bend:  # a step, which no sigmoid is
        truth = (random.random(6_000) < np.where(log_odds > -1, 0.8, 0.4)).astype(float)
    calibration, losses = chosen(log_odds, truth, np.arange(6_000) // 3)
    assert calibration.method == wanted
    assert losses[wanted] == min(losses.values())


def test_few_rows_are_left_as_they_are() -> None:
    calibration, losses = chosen(np.array([0.3, -0.2]), np.array([1.0, 0.0]), np.array(["a", "b"]))
    assert calibration == Calibration()
    assert set(losses) == {"none"}
