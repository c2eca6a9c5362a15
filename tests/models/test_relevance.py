"""Graded metrics against their definitions, worked out the slow way."""

from itertools import permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ModelError
from models.relevance import graded_ndcg_at, hit_among, recall_at

CASES = st.integers(1, 5).flatmap(
    lambda titles: st.tuples(
        st.lists(st.floats(-5, 5), min_size=titles, max_size=titles, unique=True),
        st.lists(st.floats(0, 3), min_size=titles, max_size=titles),
        st.integers(1, 6),
    )
)


def dcg(gains: list[float], k: int) -> float:
    return sum(gain / log2(place + 1) for place, gain in enumerate(gains[:k], start=1))


@given(CASES)
def test_ndcg_is_the_gain_over_that_of_the_best_of_all_orders(case: tuple[list[float], list[float], int]) -> None:
    scores, gains, k = case
    best = max(dcg(list(order), k) for order in permutations(gains))
    own = dcg([gain for _, gain in sorted(zip(scores, gains, strict=True), reverse=True)], k)
    found = graded_ndcg_at(np.array([scores]), np.array([gains]), k)[0]
    if best == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(own / best)


def test_recall_and_hits_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    relevant = np.array([[True, False, True], [True, False, False], [False, False, False]])
    assert recall_at(scores, relevant, 2)[:2].tolist() == [0.5, 0.0]
    assert np.isnan(recall_at(scores, relevant, 2)[2])
    assert hit_among(scores, relevant, 2).tolist() == [1.0, 0.0, 0.0]


def test_equal_scores_keep_their_order_and_nan_is_refused() -> None:
    assert graded_ndcg_at(np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0]]), 1)[0] == 1.0
    with pytest.raises(ModelError, match="1 of 2 scores are NaN"):
        graded_ndcg_at(np.array([[np.nan, 1.0]]), np.ones((1, 2)), 1)
