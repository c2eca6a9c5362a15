"""Metrics of a full ranking with one relevant title per row, from the rank that title got.

Every row ranks the whole catalogue (less what its viewer has seen), never a sample of negatives: sampled
metrics do not keep the order of models (Krichene & Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020).
"""

import numpy as np
import numpy.typing as npt

from models.errors import ModelError

Ranks = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def label_ranks(scores: Scores, labels: npt.NDArray[np.integer], excluded: npt.NDArray[np.bool_]) -> Ranks:
    """The place of each row's label, 1 = first, among the titles that are not excluded.

    Equal scores rank in catalogue order, as a stable sort would serve them. A label that is itself excluded (a title
    watched again) can never be served, so it is a miss.

    Args:
        scores: [rows, titles]; -inf is a title that cannot be recommended.
        labels: [rows], the column of the relevant title; -1 where the scorer does not know it.
        excluded: [rows, titles], True where a title may not be recommended.

    Returns:
        [rows]; titles + 1, a miss at every cut-off, where the label is unknown, excluded or scores -inf.

    Raises:
        ModelError: a score is NaN.
    """
    rows, titles = scores.shape
    if np.isnan(scores).any():
        raise ModelError(f"cannot rank: {int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
    known = labels >= 0
    column = np.where(known, labels, 0)
    servable = known & ~excluded[np.arange(rows), column]
    own = scores[np.arange(rows), column][:, None]
    before = np.arange(titles)[None, :] < column[:, None]
    ahead = ((scores > own) | ((scores == own) & before)) & ~excluded
    ranks: Ranks = 1 + ahead.sum(axis=1, dtype=np.int64)
    ranks[~(servable & np.isfinite(own[:, 0]))] = titles + 1
    return ranks


def ndcg_at(ranks: Ranks, k: int) -> npt.NDArray[np.float64]:
    """NDCG@k of each row, [rows] in 0..1: `1 / log2(rank + 1)` up to rank k, else 0.

    With one relevant title the ideal gain is 1, so the discounted gain is already normalised
    (Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002).
    """
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def hit_at(ranks: Ranks, k: int) -> npt.NDArray[np.float64]:
    """HR@k of each row, [rows]: 1 if the label is among the first k, else 0 (= recall@k with one relevant title)."""
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: Ranks) -> npt.NDArray[np.float64]:
    """1 / rank of each row, [rows] in 0..1; its mean is the MRR."""
    return 1.0 / ranks


def coverage(recommended: npt.NDArray[np.integer], titles: int) -> float:
    """Share of the catalogue that was recommended to anyone, 0..1.

    Args:
        recommended: title columns, any shape; negative where there was nothing left to recommend.
        titles: size of the catalogue.
    """
    distinct = np.unique(recommended[recommended >= 0])
    return len(distinct) / titles


def top_k(scores: Scores, excluded: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.int64]:
    """The k best titles of each row, best first, ties in catalogue order; -1 where none is left.

    Args:
        scores: [rows, titles].
        excluded: [rows, titles], True where a title may not be recommended.
        k: titles wanted.

    Returns:
        [rows, min(k, titles)].
    """
    rows, titles = scores.shape
    k = min(k, titles)
    masked = np.where(excluded, np.float32(-np.inf), scores)
    kth_best = np.partition(masked, titles - k, axis=1)[:, titles - k]
    best = np.full((rows, k), -1, np.int64)
    for row, threshold in enumerate(kth_best):
        candidates = np.flatnonzero((masked[row] >= threshold) & np.isfinite(masked[row]))
        chosen = candidates[np.argsort(-masked[row, candidates], kind="stable")][:k]
        best[row, : len(chosen)] = chosen
    return best
