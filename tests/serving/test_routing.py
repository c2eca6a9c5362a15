"""From expected qualities to a choice: by hand, and what must hold of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.routing import choose, probabilities

SCORES = st.none() | st.floats(0, 100)


def test_two_networks_by_hand() -> None:
    # A gap of 10 points of 100 at gamma 200: 1 / (2 + 20).
    assert probabilities([70.0, 80.0], [False, False], 200) == pytest.approx([1 / 22, 21 / 22])
    # The better one is degraded: it keeps 2 %.
    assert probabilities([70.0, 80.0], [False, True], 200) == pytest.approx([0.98, 0.02])
    # Both are: nowhere is better.
    assert probabilities([70.0, 80.0], [True, True], 200) == pytest.approx([1 / 22, 21 / 22])


def test_of_what_nothing_is_known_is_tried_like_the_worst() -> None:
    assert probabilities([60.0, 80.0, None], [False] * 3, 200) == pytest.approx([1 / 43, 41 / 43, 1 / 43])
    assert probabilities([None] * 4, [False] * 4) == pytest.approx([0.25] * 4)
    assert probabilities([None], [True]) == [1.0]
    # 0 is a score, not a missing one.
    assert probabilities([0.0, 0.0], [False, False]) == pytest.approx([0.5, 0.5])


@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=20), st.floats(0, 1000))
def test_whatever_is_expected_every_network_has_a_chance(given: list[tuple[float | None, bool]], gamma: float) -> None:
    expected, degraded = [one for one, _ in given], [one for _, one in given]
    shares = probabilities(expected, degraded, gamma)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    if not any(degraded) and any(score is not None for score in expected):
        best = max(score for score in expected if score is not None)
        assert expected[int(np.argmax(shares))] in (best, None) or len(set(np.round(shares, 9))) == 1


def test_choices_come_as_often_as_their_probabilities_say() -> None:
    generator, shares = np.random.default_rng(5), [0.7, 0.25, 0.05]
    counts = np.bincount([choose(shares, generator) for _ in range(20_000)], minlength=3)
    expected = np.array(shares) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 18.4  # chi-square with 2 degrees of freedom: 1 in 10,000
