"""The protocols of the next title: who is asked what, and what is made of the answers."""

from pathlib import Path

import numpy as np
import pytest

from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig
from models.recommendation.popularity import Popularity
from tests.benchmarks.judged import _next_title as next_title
from tests.benchmarks.judged import ml_1m, ml_100k

SMALL = {"dim": 16, "blocks": 1, "heads": 1, "dropout": 0.1, "max_length": 20, "epochs": 12, "lr": 0.01}


def circles(folder: Path, viewers: int = 150, titles: int = 40, length: int = 12) -> None:
    """Viewers who go round the same circle of titles, each from a place of its own."""
    circle = np.random.default_rng(0).permutation(titles) + 1
    lines = [f"{viewer + 1} {circle[(7 * viewer + at) % titles]}" for viewer in range(viewers) for at in range(length)]
    (folder / ml_1m.FILE).write_text("\n".join(lines))


def test_the_last_title_is_the_test_and_the_one_before_it_the_validation() -> None:
    watched = {3: np.array([5, 1, 2, 9]), 4: np.array([2, 5, 1]), 8: np.array([1, 7])}
    manifest, splits = ml_1m.leave_last_out(watched)
    assert splits["train"].select(["history", "label"]).to_pylist() == [
        {"history": [], "label": ["5", "1"]},
        {"history": [], "label": ["2"]},
        {"history": [], "label": ["1", "7"]},  # too short to be asked about
    ]
    assert splits["validation"].select(["profile_id", "history", "label"]).to_pylist() == [
        {"profile_id": "3", "history": ["5", "1"], "label": ["2"]},
        {"profile_id": "4", "history": ["2"], "label": ["5"]},
    ]
    assert splits["test"].select(["profile_id", "history", "label"]).to_pylist() == [
        {"profile_id": "3", "history": ["5", "1", "2"], "label": ["9"]},
        {"profile_id": "4", "history": ["2", "5"], "label": ["1"]},
    ]
    assert manifest.catalogue == ("1", "2", "5", "7", "9")
    assert manifest.popularity == {"5": 1, "1": 2, "2": 1, "7": 1}  # what is learnt, no more
    assert manifest.rows == {"train": 3, "validation": 2, "test": 2}


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / ml_1m.FILE).write_text("1 2 3\n1 3 4\n")
    with pytest.raises(ValueError, match="viewer and title on every line: received 3 columns"):
        ml_1m.read(tmp_path / ml_1m.FILE)


def test_lines_of_a_viewer_need_not_lie_together(tmp_path: Path) -> None:
    (tmp_path / ml_1m.FILE).write_text("2 30\n1 10\n2 10\n1 20\n")
    read = ml_1m.read(tmp_path / ml_1m.FILE)
    assert {viewer: titles.tolist() for viewer, titles in read.items()} == {1: [10, 20], 2: [30, 10]}


def test_metrics_by_hand() -> None:
    ranks = {"model": np.array([1, 3, 11]), "chance": np.array([11, 11, 1])}
    found = next_title.metrics(ranks, np.array([1, 2, 3]))
    assert found["ndcg_at_10"] == pytest.approx((1 + 0.5) / 3, abs=1e-4)
    assert found["hr_at_10"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["chance_ndcg_at_10"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["ndcg_gain_over_chance"] == pytest.approx(0.5 / 3, abs=1e-4)
    assert found["intervals"].keys() == found.keys() - {"intervals"}
    low, high = found["intervals"]["ndcg_at_10"]
    assert low < found["ndcg_at_10"] < high


def test_what_neighbours_do_not_know_goes_by_popularity() -> None:
    vocabulary = Vocabulary(["a", "b", "c"])

    class OnlyFirst:
        def score(self, histories: list[np.ndarray]) -> np.ndarray:
            return np.array([[0.1, 0, 0]] * len(histories), np.float32)

    scores = next_title.BackedOff(OnlyFirst(), Popularity(vocabulary, {"a": 1, "b": 5, "c": 9})).score([np.array([1])])
    assert np.argsort(-scores[0]).tolist() == [0, 2, 1]


def test_judged_on_a_folder_of_the_same_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circles(tmp_path)
    monkeypatch.setattr(ml_1m, "CONFIG", RecommenderConfig.from_dict(SMALL))
    answer = ml_1m.judge(tmp_path)
    assert answer["ndcg_at_10"] > 0.95  # what follows in the circle is certain
    assert answer["random_ndcg_at_10"] < 0.4
    assert answer["intervals"]["ndcg_gain_over_popularity"][0] > 0
    assert (answer["viewers"], answer["titles"]) == (150, 40)
    assert len(answer["curve"]) == answer["epochs"] <= 12
    assert {"popularity_ndcg_at_10", "item_knn_ndcg_at_10", "hr_at_10", "train_minutes"} <= answer.keys()


def test_training_stops_before_it_goes_over_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circles(tmp_path)
    monkeypatch.setattr(ml_1m, "CONFIG", RecommenderConfig.from_dict({**SMALL, "epochs": 10_000, "patience": 10_000}))
    monkeypatch.setattr(ml_1m, "LIMIT_MINUTES", 0.02)
    answer = ml_1m.judge(tmp_path)
    assert 0 < answer["epochs"] < 10_000
    ends_s = np.array([0.0, *(at for at, _ in answer["curve"])])  # rounded to tenths
    took_s = np.diff(ends_s)
    longest_before_s = np.maximum.accumulate([0.0, *took_s])
    assert (ends_s[:-1] + longest_before_s[:-1] < 1.2 + 0.2).all(), "an epoch was begun that would go over"
    assert ends_s[-1] + longest_before_s[-1] > 1.2 - 0.2, "another would not have"


def test_ml_100k_is_read_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    lines = [
        f"{viewer}\t{1 + (5 * viewer + at) % 30}\t4\t{1_000_000 + 3_600 * (at + 20 * int(random.integers(4)))}"
        for viewer in range(1, 60)
        for at in range(12)
    ]
    (tmp_path / ml_100k.FILE).write_text("\n".join(lines))
    monkeypatch.setattr(ml_100k, "CONFIG", RecommenderConfig.from_dict({**SMALL, "epochs": 3}))
    answer = ml_100k.judge(tmp_path)
    assert answer["viewers"] <= 59
    assert {"ndcg_at_10", "popularity_ndcg_at_10", "item_knn_ndcg_at_10", "random_ndcg_at_10"} <= answer.keys()


@pytest.mark.realdata
def test_ml_1m_is_the_file_of_the_published_figures(shared_data: Path) -> None:
    watched = ml_1m.read(shared_data / "ml-1m" / ml_1m.FILE)
    assert len(watched) == 6_040
    assert sum(map(len, watched.values())) == 999_611
    assert len(np.unique(np.concatenate(list(watched.values())))) == 3_416
    assert all(len(np.unique(titles)) == len(titles) for titles in watched.values())
