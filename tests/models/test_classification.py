"""Figures of probabilities, against scikit-learn's and against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from models.classification import Bins, Ranking, classified, log_loss
from models.intervals import bootstrap, bootstrap_means

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=40
)  # few scores, so that many are equal


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_areas_and_losses_are_scikit_learns_under_any_weights(rows: list[tuple[bool, int, int]]) -> None:
    truth = np.array([float(row[0]) for row in rows])
    scores, weights = np.array([row[1] / 7 for row in rows]), np.array([float(row[2]) for row in rows])
    ranking = Ranking(truth, scores)
    both = (weights * truth).sum() > 0 and (weights * (1 - truth)).sum() > 0
    if not both:
        assert np.isnan(ranking.auc(weights))
        return
    assert ranking.auc(weights) == pytest.approx(metrics.roc_auc_score(truth, scores, sample_weight=weights))
    assert ranking.average_precision(weights) == pytest.approx(
        metrics.average_precision_score(truth, scores, sample_weight=weights)
    )
    assert np.average(log_loss(truth, 0.01 + scores), weights=weights) == pytest.approx(
        metrics.log_loss(truth, 0.01 + scores, sample_weight=weights)
    )


def test_lift_is_how_many_times_more_are_found_than_by_chance() -> None:
    truth = np.array([1, 1, 0, 1] + [0] * 16, float)
    scores = np.linspace(1, 0, 20)
    assert Ranking(truth, scores).lift(np.ones(20), 0.1) == pytest.approx((2 / 3) / 0.1)
    assert Ranking(truth, np.full(20, 0.3)).lift(np.ones(20), 0.1) == pytest.approx(1.0)  # ties know nothing


def test_calibration_error_is_the_distance_of_said_and_came() -> None:
    said = np.repeat([0.2, 0.7], [10, 5])
    came = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0], float)
    found = Bins(came, said).reliability(np.ones(15))
    assert found.observed == pytest.approx([0.3, 0.6])
    assert found.error == pytest.approx(10 / 15 * 0.1 + 5 / 15 * 0.1)
    assert Bins(np.array([0.0, 1.0]), np.array([0.0, 1.0])).reliability(np.ones(2)).error == 0


def test_a_bootstrap_of_a_mean_is_the_one_for_means() -> None:
    random = np.random.default_rng(4)
    values, units = random.normal(size=200), random.integers(0, 30, 200)
    (ours,) = bootstrap(lambda weights: np.array([(weights * values).sum() / weights.sum()]), units, 7, 2_000)
    (theirs,) = bootstrap_means(values[:, None], units, 7)
    assert ours.mean == pytest.approx(theirs.mean)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_intervals_are_wider_where_rows_are_of_few_people() -> None:
    """Twenty copies of every row say no more than one."""
    random = np.random.default_rng(5)
    truth = (random.random(100) < 0.4).astype(float)
    scores = truth + random.normal(size=100)
    copied, _ = classified(
        np.repeat(truth, 20), {"model": np.repeat(scores, 20)}, np.repeat(np.arange(100), 20), 1, 200
    )
    alone, _ = classified(np.repeat(truth, 20), {"model": np.repeat(scores, 20)}, np.arange(2_000), 1, 200)
    assert copied["model"].auc.mean == alone["model"].auc.mean
    assert copied["model"].auc.high - copied["model"].auc.low > 3 * (alone["model"].auc.high - alone["model"].auc.low)


def test_differences_are_of_the_same_draws() -> None:
    random = np.random.default_rng(6)
    truth = (random.random(300) < 0.3).astype(float)
    scores = np.clip(0.3 * truth + random.random(300) * 0.6, 0.01, 0.99)
    own, ahead = classified(truth, {"model": scores, "same": scores.copy()}, np.arange(300), 1, 100)
    assert own["model"] == own["same"]
    assert (ahead["same"].auc_pr.low, ahead["same"].auc_pr.high) == (0.0, 0.0)
