"""A list of which not all titles are of one kind: maximal marginal relevance.

Titles are taken one after another, each the one with the best `(1 - weight) x relevance - weight x similarity`, where
similarity is that to the most similar title taken before (Carbonell & Goldstein, "The use of MMR, diversity-based
reranking", SIGIR 1998). With weight 0 the order is that of relevance.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def rerank(relevance: Floats, similarity: Floats, k: int, weight: float) -> npt.NDArray[np.int64]:
    """Places of the k titles to show, first to last.

    Args:
        relevance: [titles] any scale: brought to 0..1 from the least to the greatest of them.
        similarity: [titles, titles] from 0 to 1.
        k: titles wanted; fewer where there are fewer.
        weight: of diversity against relevance, 0 to 1.

    Raises:
        ValueError: the weight is outside 0..1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of diversity must be in 0..1: received {weight}")
    count = len(relevance)
    spread = np.ptp(relevance) if count else 0.0
    scaled = (relevance - relevance.min()) / spread if spread > 0 else np.zeros(count)
    taken: list[int] = []
    nearest, is_left = np.zeros(count), np.ones(count, bool)
    for _ in range(min(k, count)):
        marginal = np.where(is_left, (1 - weight) * scaled - weight * nearest, -np.inf)
        # Equal ones go by relevance, then by their place: `argmax` takes the first.
        best = int(np.argmax(np.where(marginal == marginal.max(), scaled, -np.inf)))
        taken.append(best)
        is_left[best] = False
        nearest = np.maximum(nearest, similarity[best])
    return np.array(taken, np.int64)


def genre_similarity(genres: Sequence[Sequence[str]]) -> Floats:
    """[titles, titles] shared genres over all genres of a pair (Jaccard); 0 if neither has one, 1 on the diagonal."""
    names = sorted({genre for some in genres for genre in some})
    has = np.array([[name in some for name in names] for some in genres], np.float64).reshape(len(genres), len(names))
    shared = has @ has.T
    sizes = has.sum(axis=1)
    either = sizes[:, None] + sizes[None, :] - shared
    similarity: Floats = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def intra_list_distance(similarity: Floats) -> float:
    """How different the titles of a list are: 1 less the mean similarity of its pairs, 0..1; NaN of fewer than two.

    Ziegler et al., "Improving recommendation lists through topic diversification", WWW 2005.
    """
    count = len(similarity)
    if count < 2:
        return float("nan")
    return 1 - float((similarity.sum() - np.trace(similarity)) / (count * (count - 1)))
