"""Metrics of rankings in which several titles may be relevant, each to its own degree.

`models.ranking` is for one relevant title a row. Here a row has a gain per title: 1 and 0 for watched or not, or the
probability of it where the truth is known.
"""

import numpy as np
import numpy.typing as npt

from models.errors import ModelError

Floats = npt.NDArray[np.floating]


def order_of(scores: Floats, k: int) -> npt.NDArray[np.int64]:
    """[rows, min(k, titles)] places of the k best scores of each row, best first; ties in the order of the columns.

    Raises:
        ModelError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise ModelError(f"cannot rank: {int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order


def discounts(k: int) -> npt.NDArray[np.float64]:
    """[k] what a gain counts at each place: 1 / log2(place + 1), places from 1."""
    weights: npt.NDArray[np.float64] = 1.0 / np.log2(np.arange(k) + 2.0)
    return weights


def graded_ndcg_at(scores: Floats, gains: Floats, k: int) -> npt.NDArray[np.float64]:
    """NDCG@k of each row in 0..1: its discounted gain over that of the best possible order; NaN where all gains are 0.

    Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with the gains as they are.

    Args:
        scores: [rows, titles]; the higher, the earlier; -inf is a title that is not offered.
        gains: [rows, titles], at least 0.
        k: places that count.
    """
    found = _cumulated(np.take_along_axis(gains, order_of(scores, k), axis=1))
    best = _cumulated(-np.sort(-gains, axis=1)[:, :k])
    ndcg: npt.NDArray[np.float64] = np.divide(found, best, out=np.full(len(best), np.nan), where=best > 0)
    return ndcg


def recall_at(scores: Floats, relevant: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.float64]:
    """Share of each row's relevant titles that are among its first k; NaN where it has none."""
    found = np.take_along_axis(relevant, order_of(scores, k), axis=1).sum(axis=1)
    wanted = relevant.sum(axis=1)
    recall: npt.NDArray[np.float64] = np.divide(found, wanted, out=np.full(len(wanted), np.nan), where=wanted > 0)
    return recall


def hit_among(scores: Floats, relevant: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.float64]:
    """HR@k of each row: 1 if one of its relevant titles is among its first k, else 0."""
    hits: npt.NDArray[np.float64] = np.take_along_axis(relevant, order_of(scores, k), axis=1).any(axis=1).astype(float)
    return hits


def _cumulated(gains: Floats) -> npt.NDArray[np.float64]:
    cumulated: npt.NDArray[np.float64] = gains.astype(np.float64) @ discounts(gains.shape[1])
    return cumulated
