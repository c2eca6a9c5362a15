"""Evaluation against a loop over rows, across catalogues, and in slices that add up."""

import numpy as np
import pytest

from models.recommendation.batches import Titles, Vocabulary, encode
from models.recommendation.evaluation import Translated, compare, rank_rows, slices
from models.recommendation.popularity import Popularity
from tests.models.recommendation.conftest import ReadSet


class Hashed:
    """Scores that depend on the history and on nothing else."""

    def __init__(self, titles: int) -> None:
        self.titles = titles

    def score(self, histories: list[Titles]) -> np.ndarray:
        rows = [np.random.default_rng([7, *history]).random(self.titles) for history in histories]
        return np.array(rows, np.float32)


def test_ranks_are_those_of_a_loop_in_the_order_asked(planted: ReadSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.recommendation.evaluation._SCORES_AT_ONCE", 60 * 7)  # seven rows a pass
    vocabulary = Vocabulary(planted.manifest.catalogue)
    sequences = encode(planted.splits["test"], vocabulary)
    rows = np.random.default_rng(1).choice(len(sequences), 50, replace=False)
    ranked = rank_rows(Hashed(60), sequences, 60, rows)
    for row, rank, best in zip(rows, ranked.ranks, ranked.best, strict=True):
        (scores,) = Hashed(60).score([sequences.history(row)])
        order = [title for title in np.argsort(-scores) if title not in sequences.history(row)]
        assert order.index(sequences.label(row)[0]) + 1 == rank
        assert order[:10] == best.tolist()


def test_a_scorer_of_another_catalogue_misses_what_it_does_not_know() -> None:
    theirs, ours = Vocabulary(["c", "a", "gone"]), Vocabulary(["a", "b", "c"])

    class Last:
        """Scores a title 1 if it is the history's last, else 0.5."""

        def score(self, histories: list[Titles]) -> np.ndarray:
            scores = np.full((len(histories), 3), 0.5, np.float32)
            for row, history in enumerate(histories):
                scores[row, history[-1]] = 1
            return scores

    histories = [np.array([0, 1], np.int32), np.array([2], np.int32)]  # "a" and the unknown "b"; "c"
    assert Translated(Last(), theirs, ours).score(histories).tolist() == [[1, -np.inf, 0.5], [0.5, -np.inf, 1]]


def test_comparison_by_hand() -> None:
    compared = compare(np.array([1, 2, 11]), np.array([2, 11, 11]), np.array([0, 1, 1]), seed=1)
    log3 = 1 / np.log2(3)
    assert compared.ndcg.mean == pytest.approx((1 + log3) / 3)
    assert compared.other_ndcg.mean == pytest.approx(log3 / 3)
    assert compared.ndcg_gain.mean == pytest.approx(1 / 3)
    assert compared.hit_rate.mean == pytest.approx(2 / 3)
    assert compared.reciprocal_rank.mean == pytest.approx((1 + 1 / 2 + 1 / 11) / 3)
    assert (compared.rows, compared.viewers) == (3, 2)


def test_slices_of_one_kind_add_up(planted: ReadSet) -> None:
    vocabulary = Vocabulary(planted.manifest.catalogue)
    table = planted.splits["test"].sort_by("row_id")
    finished = Popularity(vocabulary, planted.manifest.popularity).score([np.array([], np.int32)])[0]
    masks = slices(table, encode(table, vocabulary), finished)
    for kind in ("history", "label", "prefers"):
        assert sum(mask.astype(int) for name, mask in masks.items() if kind in name).tolist() == [1] * len(table)
    assert {"prefers vod", "prefers catchup", "prefers unknown"} <= masks.keys()
    popular = set(np.argsort(-finished, kind="stable")[:12])
    labels = [vocabulary.columns(label)[0] for label in table["label"].to_pylist()]
    assert masks["popular label"].tolist() == [label in popular for label in labels]
