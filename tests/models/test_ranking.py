"""Metrics of a ranking against arithmetic by hand and against sorting row by row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import ModelError
from models.ranking import coverage, hit_at, label_ranks, ndcg_at, reciprocal_rank, top_k


def test_metrics_by_hand() -> None:
    ranks = np.array([1, 2, 3, 10, 11])
    assert ndcg_at(ranks, 10) == pytest.approx([1, 1 / math.log2(3), 0.5, 1 / math.log2(11), 0])
    assert ndcg_at(ranks, 2) == pytest.approx([1, 0.6309297535714575, 0, 0, 0])
    assert hit_at(ranks, 10).tolist() == [1, 1, 1, 1, 0]
    assert reciprocal_rank(ranks) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 10, 1 / 11])


def test_coverage_counts_each_title_once_and_no_gaps() -> None:
    assert coverage(np.array([[0, 3, -1], [3, 1, -1]]), 6) == 0.5


def test_rank_counts_only_titles_that_may_be_served() -> None:
    scores = np.array([[5, 4, 3, 2]] * 5, np.float32)
    excluded = np.zeros((5, 4), bool)
    excluded[1, 0] = excluded[2, :2] = excluded[3, 2] = True
    # The label is title 2, except in the last row, whose label the scorer does not know.
    assert label_ranks(scores, np.array([2, 2, 2, 2, -1]), excluded).tolist() == [3, 2, 1, 5, 5]


def test_a_title_that_cannot_be_recommended_is_a_miss() -> None:
    scores = np.array([[-np.inf, -np.inf, 1]], np.float32)
    assert label_ranks(scores, np.array([0]), np.zeros((1, 3), bool)).tolist() == [4]


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="1 of 2 scores are NaN"):
        label_ranks(np.array([[np.nan, 1]], np.float32), np.array([0]), np.zeros((1, 2), bool))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, titles = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    few_values = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])  # few, so that there are ties
    scores = draw(arrays.arrays(np.float32, (rows, titles), elements=few_values))
    excluded = draw(arrays.arrays(np.bool_, (rows, titles)))
    labels = draw(arrays.arrays(np.int64, rows, elements=st.integers(-1, titles - 1)))
    return scores, excluded, labels


@given(rankings(), st.integers(1, 8))
def test_ranks_and_best_titles_are_those_of_a_stable_sort(
    ranking: tuple[np.ndarray, np.ndarray, np.ndarray], k: int
) -> None:
    scores, excluded, labels = ranking
    ranks, best = label_ranks(scores, labels, excluded), top_k(scores, excluded, k)
    for row in range(len(scores)):
        candidates = [title for title in range(scores.shape[1]) if not excluded[row, title]]
        served = [t for t in sorted(candidates, key=lambda title: -scores[row, title]) if scores[row, t] > -np.inf]
        expected = served.index(labels[row]) + 1 if labels[row] in served else scores.shape[1] + 1
        assert ranks[row] == expected
        assert [title for title in best[row] if title >= 0] == served[:k]
