"""How the recommender is judged: the rank of the next title among the whole catalogue, seen titles excluded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.intervals import Interval, bootstrap_means
from models.ranking import Ranks, Scores, hit_at, label_ranks, ndcg_at, reciprocal_rank, top_k
from models.recommendation.batches import Sequences, Titles, Vocabulary

CUT = 10
_SCORES_AT_ONCE = 4_000_000  # rows x titles ranked in one pass: bounds memory to some 100 MB
_HEAD = 0.2  # the share of the catalogue that counts as popular
_HISTORY_LENGTHS = ((0, 0, "0"), (1, 4, "1-4"), (5, 19, "5-19"), (20, None, "20 and more"))


class Scorer(Protocol):
    """Anything that scores every title of one shared catalogue after a history."""

    def score(self, histories: Sequence[Titles]) -> Scores:
        """[len(histories), titles]; the higher, the likelier next."""
        ...


class Translated:
    """A scorer of one catalogue as a scorer of another: titles it does not know score -inf, so they are misses."""

    def __init__(self, scorer: Scorer, theirs: Vocabulary, ours: Vocabulary) -> None:
        self._scorer = scorer
        self._titles = len(ours)
        self._their_column = theirs.lookup(pa.array(ours.content_ids, pa.string()))

    def score(self, histories: Sequence[Titles]) -> Scores:
        """[len(histories), our titles]."""
        translated = [self._their_column[history] for history in histories]
        scores = self._scorer.score([known[known >= 0].astype(np.int32) for known in translated])
        shared = self._their_column >= 0
        ours = np.full((len(histories), self._titles), -np.inf, np.float32)
        ours[:, shared] = scores[:, self._their_column[shared]]
        return ours


@dataclass(frozen=True)
class Ranked:
    """Rows ranked by a scorer."""

    ranks: Ranks
    """[rows] the place of each row's first label."""
    best: npt.NDArray[np.int64]
    """[rows, min(10, titles)] what each row would be served, best first; -1 for none."""


def rank_rows(scorer: Scorer, sequences: Sequences, titles: int, rows: npt.NDArray[np.int64]) -> Ranked:
    """Ranks `titles` titles for each of `rows`, less those of its history."""
    # Rows of like length are scored together, which saves padding; the answer is in the order asked.
    order = np.argsort(sequences.label_starts[rows], kind="stable")
    passes = [
        (label_ranks(scores, labels, seen), top_k(scores, seen, CUT))
        for scores, labels, seen in _passes(scorer, sequences, titles, rows[order])
    ]
    ranks = [np.empty(0, np.int64), *(ranks for ranks, _ in passes)]
    best = [np.empty((0, min(CUT, titles)), np.int64), *(best for _, best in passes)]
    asked = np.argsort(order)
    return Ranked(np.concatenate(ranks)[asked], np.concatenate(best)[asked])


def _passes(
    scorer: Scorer, sequences: Sequences, titles: int, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[Scores, npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """(scores, label columns, seen titles) of as many rows at a time as fit."""
    at_once = max(1, _SCORES_AT_ONCE // titles)
    for start in range(0, len(rows), at_once):
        chunk = rows[start : start + at_once]
        histories = [sequences.history(row) for row in chunk]
        seen = np.zeros((len(chunk), titles), bool)
        for place, history in enumerate(histories):
            seen[place, history] = True
        labels = np.array([sequences.label(row)[0] for row in chunk], np.int64)
        yield scorer.score(histories), labels, seen


@dataclass(frozen=True)
class Compared:
    """Two scorers on the same rows: means with 95 % intervals, and those of their paired difference."""

    rows: int
    viewers: int
    ndcg: Interval
    hit_rate: Interval
    reciprocal_rank: Interval
    other_ndcg: Interval
    other_hit_rate: Interval
    ndcg_gain: Interval
    """NDCG@10 of the first less that of the other, row by row."""


def compare(ranks: Ranks, other: Ranks, viewers: npt.NDArray[np.generic], seed: int) -> Compared:
    """`ranks` against `other` on the same rows, all [rows], drawn by viewer."""
    ndcg, other_ndcg = ndcg_at(ranks, CUT), ndcg_at(other, CUT)
    columns = [ndcg, hit_at(ranks, CUT), reciprocal_rank(ranks), other_ndcg, hit_at(other, CUT), ndcg - other_ndcg]
    intervals = bootstrap_means(np.stack(columns, axis=1), viewers, seed)
    return Compared(len(ranks), len(np.unique(viewers)), *intervals)


def slices(
    table: pa.Table, sequences: Sequences, finished: npt.NDArray[np.floating]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks over the rows of `table` (which `sequences` encodes, in `row_id` order), by name.

    Args:
        table: test rows, in ascending `row_id`.
        sequences: the same rows.
        finished: [titles] how often each title was finished in the training period.
    """
    lengths = sequences.label_starts
    named = {
        f"history {name}": (lengths >= low) & (lengths <= (high if high is not None else lengths))
        for low, high, name in _HISTORY_LENGTHS
    }
    labels = np.array([sequences.label(row)[0] for row in range(len(sequences))], np.int64)
    head = np.argsort(-finished, kind="stable")[: max(1, int(len(finished) * _HEAD))]
    named["popular label"] = np.isin(labels, head)
    named["tail label"] = ~named["popular label"]
    preferred = np.array(["unknown" if kind is None else kind for kind in table["preferred_content_type"].to_pylist()])
    named |= {f"prefers {kind}": preferred == kind for kind in np.unique(preferred)}
    return named
