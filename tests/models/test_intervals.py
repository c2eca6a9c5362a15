"""Bootstrap intervals against the normal theory that they approximate."""

import numpy as np
import pytest

from models.intervals import bootstrap_means


def test_agrees_with_the_standard_error_of_independent_rows() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, (400, 1))
    (interval,) = bootstrap_means(values, np.arange(400), seed=1)
    error = values.std(ddof=1) / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_rows_of_one_viewer_are_not_evidence_of_their_own() -> None:
    """40 viewers with 25 equal rows each say as much as 40 rows, not as 1,000."""
    viewers = np.repeat(np.arange(40), 25)
    per_viewer = np.random.default_rng(4).normal(0, 1, 40)
    (clustered,) = bootstrap_means(per_viewer[viewers][:, None], viewers, seed=1)
    (once,) = bootstrap_means(per_viewer[:, None], np.arange(40), seed=1)
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_columns_share_their_draws_so_that_a_difference_is_paired() -> None:
    random = np.random.default_rng(5)
    hard = random.normal(0, 5, 300)  # how hard a row is drowns the difference of 0.1, unless rows are paired
    values = np.stack([hard + 0.1 + random.normal(0, 0.1, 300), hard], axis=1)
    columns = np.column_stack([values, values[:, 0] - values[:, 1]])
    ours, theirs, gain = bootstrap_means(columns, np.arange(300), seed=1)
    assert ours.low < theirs.high
    assert gain.above_zero
    assert gain.mean == pytest.approx(ours.mean - theirs.mean)


def test_viewers_weigh_by_their_rows() -> None:
    (interval,) = bootstrap_means(np.array([[1.0], [1.0], [1.0], [5.0]]), np.array(["a", "a", "a", "b"]), seed=1)
    assert interval.mean == 2.0
    assert (interval.low, interval.high) == (1.0, 5.0)  # draws of two viewers: a a, a b, b b


def test_no_rows_have_no_mean() -> None:
    (interval,) = bootstrap_means(np.empty((0, 1)), np.empty(0), seed=1)
    assert np.isnan([interval.mean, interval.low, interval.high]).all()
    assert not interval.above_zero


def test_the_seed_decides() -> None:
    values = np.random.default_rng(6).normal(size=(50, 1))
    first, again, other = (bootstrap_means(values, np.arange(50), seed) for seed in (1, 1, 2))
    assert first == again != other
