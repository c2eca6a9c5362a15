"""The policy's probabilities against the published formula by hand, and what it promises in every case."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cdn.policy import draw, inverse_gap, steer_away
from models.errors import ConfigurationError

ALL = np.ones((1, 3), bool)


def test_equals_the_formula_by_hand() -> None:
    """Three arms, gaps 0.2 and 0.5, gamma 10: 1 / (3 + 2) and 1 / (3 + 5), the best has the rest."""
    (found,) = inverse_gap(np.array([[0.3, 0.8, 0.6]]), ALL, gamma=10)
    assert found == pytest.approx([1 / 8, 1 - 1 / 8 - 1 / 5, 1 / 5])


def test_gamma_0_is_uniform_over_what_is_on_offer() -> None:
    (found,) = inverse_gap(np.array([[0.3, 0.8, np.nan]]), np.array([[True, True, False]]), gamma=0)
    assert found.tolist() == [0.5, 0.5, 0.0]


@given(
    expected=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    offered=st.lists(st.booleans(), min_size=6, max_size=6),
    gamma=st.floats(0, 1e6),
)
def test_probabilities_sum_to_1_and_have_their_floor(expected: list[float], offered: list[bool], gamma: float) -> None:
    arms = len(expected)
    there = np.array([offered[:arms]])
    there[0, 0] = True
    (found,) = inverse_gap(np.array([expected]), there, gamma)
    assert found.sum() == pytest.approx(1)
    assert (found[~there[0]] == 0).all()
    floor = 1 / (there.sum() + gamma)
    assert (found[there[0]] >= floor * (1 - 1e-9)).all()
    assert found[np.where(there[0], expected, -1).argmax()] == pytest.approx(found.max())


def test_what_cannot_be_chosen_from_is_named() -> None:
    with pytest.raises(ConfigurationError, match="gamma is -1"):
        inverse_gap(np.zeros((1, 3)), ALL, gamma=-1)
    with pytest.raises(ConfigurationError, match="no arm on offer"):
        inverse_gap(np.zeros((1, 3)), ~ALL, gamma=1)


def test_degraded_arms_share_the_probes_and_the_others_keep_their_proportions() -> None:
    (found,) = steer_away(np.array([[0.6, 0.3, 0.1]]), np.array([True, False, False]), probe_share=0.02)
    assert found == pytest.approx([0.02, 0.98 * 0.75, 0.98 * 0.25])


def test_an_arm_that_had_less_than_the_probes_keeps_what_it_had() -> None:
    policy = np.array([[0.01, 0.99]])
    assert steer_away(policy, np.array([True, False]), probe_share=0.02) == pytest.approx(policy)


def test_where_all_are_degraded_or_none_nothing_changes() -> None:
    policy = np.array([[0.6, 0.4], [0.5, 0.5], [1.0, 0.0]])
    bad = np.array([[True, True], [False, False], [True, False]])
    assert steer_away(policy, bad) == pytest.approx(policy)


def test_where_all_are_degraded_rounding_is_no_way_out() -> None:
    policy = np.random.default_rng(6).dirichlet(np.ones(5), 1_000)  # whose sums are 1 but for their last digit
    assert steer_away(policy, np.ones(5, bool)) == pytest.approx(policy)


def test_what_is_drawn_is_logged_with_the_share_it_is_drawn_with() -> None:
    policy = np.broadcast_to([0.2, 0.0, 0.7, 0.1], (20_000, 4))
    arms, propensities = draw(policy, np.random.default_rng(4))
    assert propensities == pytest.approx(policy[0][arms])
    shares = np.bincount(arms, minlength=4) / 20_000
    assert shares == pytest.approx([0.2, 0.0, 0.7, 0.1], abs=0.015)  # four standard errors
    assert shares[1] == 0
