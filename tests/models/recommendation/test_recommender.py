"""What is served: probabilities, exclusions, unknown titles, and the folder a model is kept in."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ModelFolderError
from models.recommendation.batches import Vocabulary
from models.recommendation.model import RecommenderConfig, SASRec
from models.recommendation.pyfunc import _load_pyfunc
from models.recommendation.recommender import Recommender

TITLES = [f"t{number}" for number in range(12)]


@pytest.fixture
def recommender() -> Recommender:
    torch.manual_seed(3)
    return Recommender(SASRec(12, RecommenderConfig(dim=8, heads=2, max_length=6)), Vocabulary(TITLES))


def assert_same(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> None:
    """The same titles in the same order; a batch may sum its rows in another order, so equal to float32's last bits."""
    assert [title for title, _ in one] == [title for title, _ in other]
    assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-6)


def test_probabilities_of_all_titles_sum_to_one_and_fall(recommender: Recommender) -> None:
    (answer,) = recommender.recommend([["t1", "t2"]], k=12, exclude_seen=False)
    probabilities = [probability for _, probability in answer]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)
    assert {title for title, _ in answer} == set(TITLES)


def test_seen_titles_are_left_out_and_the_rest_keeps_its_order(recommender: Recommender) -> None:
    history = ["t1", "t2", "t1", "t11"]
    (everything,) = recommender.recommend([history], k=12, exclude_seen=False)
    (unseen,) = recommender.recommend([history], k=12)
    assert_same(unseen, [scored for scored in everything if scored[0] not in history])


def test_only_what_is_allowed(recommender: Recommender) -> None:
    (answer,) = recommender.recommend([["t1"]], k=5, allowed={"t1", "t5", "t9", "not in the catalogue"})
    assert {title for title, _ in answer} == {"t5", "t9"}
    assert recommender.recommend([["t1"]], k=5, allowed=set()) == [[]]


def test_unknown_titles_are_skipped_and_counted(recommender: Recommender) -> None:
    known, mixed = recommender.recommend([["t1", "t4"], ["?", "t1", "!", "t4"]], k=3)
    assert_same(known, mixed)
    assert recommender.unknown_titles == 2


def test_an_empty_history_is_answered_too(recommender: Recommender) -> None:
    empty, unknown = recommender.recommend([[], ["?"]], k=4)
    assert_same(empty, unknown)
    assert len(empty) == 4


def test_only_the_last_titles_count(recommender: Recommender) -> None:
    history = TITLES[:10]
    (whole,) = recommender.recommend([history], 3, exclude_seen=False)
    (tail,) = recommender.recommend([history[-5:]], 3, exclude_seen=False)
    assert_same(whole, tail)


def test_histories_asked_together_are_answered_as_if_alone(recommender: Recommender) -> None:
    random = np.random.default_rng(0)
    histories = [random.choice(TITLES, random.integers(0, 9)).tolist() for _ in range(300)]
    together = recommender.recommend(histories, 4)
    for history, answer in zip(histories, together, strict=True):
        (alone,) = recommender.recommend([history], 4)
        assert_same(alone, answer)


def test_nothing_asked_nothing_answered(recommender: Recommender) -> None:
    assert recommender.recommend([], 3) == []
    with pytest.raises(ValueError, match="k must be at least 1"):
        recommender.recommend([[]], 0)


def test_loaded_it_answers_as_before(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "vocabulary.json", "weights.pt"]
    histories = [["t1"], [], ["t3", "t4"]]
    assert Recommender.load(tmp_path).recommend(histories, 5) == recommender.recommend(histories, 5)


def test_mlflows_door_answers_the_same(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    answer = _load_pyfunc(str(tmp_path)).predict({"history": [["t1"]]}, {"k": 2})
    (expected,) = recommender.recommend([["t1"]], 2)
    assert answer == {"content_ids": [[t for t, _ in expected]], "probabilities": [[p for _, p in expected]]}


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "weights.pt"])
def test_a_folder_that_lacks_or_breaks_a_file_is_refused(recommender: Recommender, tmp_path: Path, name: str) -> None:
    recommender.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFolderError, match="fetch or train"):
        Recommender.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelFolderError, match="fetch or train"):
        Recommender.load(tmp_path)


def test_another_format_or_another_models_weights_are_refused(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(ModelFolderError, match="holds format 99"):
        Recommender.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "config": {**config["config"], "dim": 16}}))
    with pytest.raises(ModelFolderError, match="size mismatch"):
        Recommender.load(tmp_path)


def test_weights_that_would_run_code_are_refused(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    torch.save({"bias": print}, tmp_path / "weights.pt")
    with pytest.raises(ModelFolderError):
        Recommender.load(tmp_path)
