"""Maximal marginal relevance against its definition, and what variety costs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cascade.diversity import genre_similarity, intra_list_distance, rerank
from models.relevance import graded_ndcg_at

GENRES = ("crime", "drama", "family", "horror", "news")
LISTS = st.lists(
    st.tuples(st.floats(0, 1), st.lists(st.sampled_from(GENRES), max_size=3, unique=True)), min_size=1, max_size=8
)


def by_definition(relevance: list[float], similarity: np.ndarray, k: int, weight: float) -> list[int]:
    low, high = min(relevance), max(relevance)
    scaled = [(one - low) / (high - low) if high > low else 0.0 for one in relevance]
    taken: list[int] = []
    while len(taken) < min(k, len(relevance)):
        left = [place for place in range(len(relevance)) if place not in taken]
        marginal = {
            place: (1 - weight) * scaled[place] - weight * max((similarity[place, other] for other in taken), default=0)
            for place in left
        }
        greatest = max(marginal.values())
        taken.append(max((p for p in left if marginal[p] == greatest), key=lambda place: (scaled[place], -place)))
    return taken


@given(LISTS, st.integers(1, 10), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_titles_are_taken_as_the_paper_says(titles: list[tuple[float, list[str]]], k: int, weight: float) -> None:
    relevance = np.array([one for one, _ in titles])
    similarity = genre_similarity([genres for _, genres in titles])
    found = rerank(relevance, similarity, k, weight).tolist()
    assert found == by_definition(relevance.tolist(), similarity, k, weight)
    assert len(set(found)) == len(found) == min(k, len(titles))
    if weight == 0:
        assert found == np.argsort(-relevance, kind="stable")[:k].tolist()


def test_similarity_and_distance_by_hand() -> None:
    similarity = genre_similarity([["crime", "drama"], ["drama"], ["news"], []])
    assert similarity.tolist() == [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert intra_list_distance(similarity) == pytest.approx(1 - 0.5 / 6)
    assert np.isnan(intra_list_distance(similarity[:1, :1]))
    with pytest.raises(ValueError, match=r"must be in 0..1: received 1.5"):
        rerank(np.ones(2), np.eye(2), 1, 1.5)


def test_variety_has_its_price_and_the_price_rises() -> None:
    """The trade-off: over 200 lists, every more weight makes pages more varied, and no more relevant."""
    curve = []
    for weight in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7):
        random = np.random.default_rng(5)  # the same lists for every weight
        distances, ndcgs = [], []
        for _ in range(200):
            tastes = random.dirichlet(np.full(len(GENRES), 0.3))
            genres = random.integers(len(GENRES), size=40)
            relevance = tastes[genres] * random.random(40)
            similarity = genre_similarity([[GENRES[genre]] for genre in genres])
            shown = rerank(relevance, similarity, 10, weight)
            distances.append(intra_list_distance(similarity[np.ix_(shown, shown)]))
            scores = np.full(40, -np.inf)
            scores[shown] = -np.arange(10)
            ndcgs.append(graded_ndcg_at(scores[None], relevance[None], 10)[0])
        curve.append((np.mean(distances), np.mean(ndcgs)))
    varied, relevant = zip(*curve, strict=True)
    assert relevant[0] == pytest.approx(1)
    assert all(later > earlier - 0.005 for earlier, later in itertools.pairwise(varied))
    assert all(later < earlier + 0.005 for earlier, later in itertools.pairwise(relevant))
    assert varied[-1] > varied[0] + 0.2
    assert varied[1] > varied[0] + 0.02  # some variety is nearly free
    assert relevant[1] > 0.97
