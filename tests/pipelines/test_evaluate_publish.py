"""Evaluation looks at the test period once; the gate lets through only what is better by more than noise."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion

from models.errors import EmptyTrainingSetError
from models.recommendation.model import RecommenderConfig
from models.recommendation.recommender import Recommender
from models.recommendation.task import TASK
from models.recommendation.training import RecommenderTraining
from models.task import Place
from models.training_set import Manifest
from pipelines.evaluate import TrainingSetChangedError, evaluate
from pipelines.publish import NotEvaluatedError, publish
from pipelines.signature import mlflow_signature
from pipelines.tracking import ModelNotRegisteredError, Tracking
from tests.models.recommendation.conftest import SMALL, read_set
from tests.models.recommendation.planted import DAY_MS, START_MS, Planted, edit_manifest, write_training_set
from tests.pipelines.registry import empty_mlflow

MODEL = "recommendation"
LEARNT, IGNORANT = 15, 0


class Registry:
    """An MLflow of one test's own, and versions trained in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = empty_mlflow(folder)
        self.tracking = Tracking(self.uri)
        self.sets = 0

    def write_set(self, **changes: int) -> Planted:
        self.sets += 1
        return write_training_set(self.folder / f"set{self.sets}", **changes)

    def register(self, planted: Planted, epochs: int) -> ModelVersion:
        read = read_set(planted)
        config = RecommenderConfig.from_dict({**SMALL, "epochs": max(1, epochs)})
        training = RecommenderTraining(config, read.manifest, read.splits["train"], read.splits["validation"], Place())
        for _ in range(epochs):
            training.epoch()
        saved = self.folder / "saved"
        training.best().save(saved)
        run_id = self.tracking.open_run(MODEL, f"run {len(list(self.folder.rglob('MLmodel')))}", {})
        return self.tracking.register(
            MODEL, run_id, saved, TASK.loader, mlflow_signature(TASK.signature), tags(read.manifest, planted)
        )

    def evaluate(self, version: ModelVersion | None = None) -> dict[str, object]:
        return evaluate(MODEL, tracking_uri=self.uri, version=str(version.version) if version else None).did

    def publish(self, version: ModelVersion | None = None) -> dict[str, object]:
        return publish(MODEL, tracking_uri=self.uri, version=str(version.version) if version else None).did

    @property
    def aliases(self) -> dict[str, str]:
        return {
            name: str(version) for name, version in self.tracking.client.get_registered_model(MODEL).aliases.items()
        }

    def tags_of(self, version: ModelVersion) -> dict[str, str]:
        return self.tracking.version(MODEL, str(version.version)).tags


def tags(manifest: Manifest, planted: Planted) -> dict[str, str]:
    return {
        "training_set": str(planted.folder),
        "training_set_digest": manifest.digest,
        "label_horizon_ms": str(manifest.label_horizon_ms),
    }


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def plant(registry: Registry) -> Callable[..., Planted]:
    def write(**changes: int) -> Planted:
        return registry.write_set(**{"viewers": 120, "titles": 40, "length": 20, **changes})

    return write


def test_figures_are_those_of_a_loop_over_the_test_rows(registry: Registry, plant: Callable[..., Planted]) -> None:
    planted = plant()
    version = registry.register(planted, LEARNT)
    did = registry.evaluate()

    rows = read_set(planted).splits["test"].to_pylist()
    counts = json.loads((planted.folder / "manifest.json").read_text())["popularity"]
    titles = sorted(planted.successor)
    with registry.tracking.fetched(version) as folder:
        recommender = Recommender.load(folder)
    gains, popular_gains, named = [], [], set()
    for row in rows:
        answer = [title for title, _ in recommender.recommend([row["history"]], 10)[0]]
        popular = sorted(set(titles) - set(row["history"]), key=lambda title: (-counts.get(title, 0), title))[:10]
        named.update(answer)
        for served, into in ((answer, gains), (popular, popular_gains)):
            label = row["label"][0]
            into.append(1 / math.log2(served.index(label) + 2) if label in served else 0)
    assert did["test_ndcg_at_10"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert did["test_popularity_ndcg_at_10"] == pytest.approx(np.mean(popular_gains), abs=1e-6)
    assert did["test_catalogue_coverage_at_10"] == len(named) / 40
    assert did["viewers"] == 120
    assert did["test_ndcg_at_10_low"] < did["test_ndcg_at_10"] < did["test_ndcg_at_10_high"]


def test_logs_slices_and_pictures_and_looks_once(registry: Registry, plant: Callable[..., Planted]) -> None:
    planted = plant()
    version = registry.register(planted, 2)
    first = registry.evaluate()
    metrics = registry.tracking.metrics(str(version.run_id))
    # Everyone has watched 18 or 19 titles by the test period.
    assert metrics["test_slice_history_5_19_rows"] == metrics["test_rows"] == 240
    assert metrics["test_slice_popular_label_rows"] + metrics["test_slice_tail_label_rows"] == 240
    assert {"test_slice_prefers_vod_ndcg_at_10_low", "test_ndcg_gain_at_10_high", "test_mrr"} <= metrics.keys()
    plots = registry.tracking.client.list_artifacts(str(version.run_id), "plots")
    assert [plot.path for plot in plots] == ["plots/test_slices.png"]

    for path in (planted.folder / "split=test").iterdir():
        path.unlink()  # whoever looked again would fail
    again = registry.evaluate(version)
    assert again.pop("already evaluated") == "recommendation"
    assert again.items() <= first.items()


def test_evaluation_names_what_is_wrong(registry: Registry, plant: Callable[..., Planted]) -> None:
    with pytest.raises(ModelNotRegisteredError, match="reel train recommendation"):
        registry.evaluate()
    planted = plant(viewers=5)
    registry.register(planted, 1)
    with pytest.raises(ModelNotRegisteredError, match="no version 7"):
        evaluate(MODEL, tracking_uri=registry.uri, version="7")
    edit_manifest(planted.folder, seed=99)
    with pytest.raises(TrainingSetChangedError, match="not what recommendation 1 was trained on"):
        registry.evaluate()
    planted.folder.rename(planted.folder.with_name("elsewhere"))
    with pytest.raises(TrainingSetChangedError, match="is gone"):
        registry.evaluate()


def test_a_training_set_without_a_test_row_cannot_judge(registry: Registry, plant: Callable[..., Planted]) -> None:
    planted = plant(viewers=5)
    counts = json.loads((planted.folder / "manifest.json").read_text())["rows"]
    edit_manifest(planted.folder, rows={**counts, "test": 0})
    registry.register(planted, 1)
    with pytest.raises(EmptyTrainingSetError, match="test split"):
        registry.evaluate()


def test_nothing_is_published_that_nobody_has_measured(registry: Registry, plant: Callable[..., Planted]) -> None:
    registry.register(plant(viewers=5), 1)
    with pytest.raises(NotEvaluatedError, match="reel evaluate recommendation"):
        registry.publish()
    assert registry.aliases == {}


def test_the_first_champion_has_to_beat_popularity(registry: Registry, plant: Callable[..., Planted]) -> None:
    planted = plant()
    ignorant = registry.register(planted, IGNORANT)
    registry.evaluate()
    assert registry.publish()["decision"] == "refused"
    assert registry.aliases == {"challenger": "1"}
    assert "not better by more than noise" in registry.tags_of(ignorant)["gate.reason"]

    learnt = registry.register(planted, LEARNT)
    registry.evaluate()
    did = registry.publish()
    assert did["decision"] == "published"
    assert float(did["gain_low"]) > 0  # type: ignore[arg-type]
    assert registry.aliases == {"challenger": "1", "champion": "2"}
    assert registry.tags_of(learnt)["gate.opponent"] == "popularity"
    assert registry.publish()["reason"] == "it is the champion already"


def test_a_better_one_takes_over_and_an_equal_one_does_not(registry: Registry, plant: Callable[..., Planted]) -> None:
    planted = plant()
    for epochs, decision, aliases in (
        (3, "published", {"champion": "1"}),
        (LEARNT, "published", {"champion": "2", "challenger": "1"}),
        (LEARNT, "refused", {"champion": "2", "challenger": "3"}),
        (IGNORANT, "refused", {"champion": "2", "challenger": "4"}),
    ):
        version = registry.register(planted, epochs)
        registry.evaluate()
        assert registry.publish()["decision"] == decision
        assert registry.aliases == aliases
        assert registry.tags_of(version)["gate.decision"] == decision
    assert registry.publish()["decision"] == "refused"  # asked again, it is answered again
    assert registry.aliases == {"champion": "2", "challenger": "4"}


def test_champion_of_an_older_catalogue_is_judged_on_the_new_one(
    registry: Registry, plant: Callable[..., Planted]
) -> None:
    registry.register(plant(titles=40), LEARNT)
    registry.evaluate()
    registry.publish()
    registry.register(plant(titles=60, start_ms=START_MS + 40 * DAY_MS), LEARNT)
    registry.evaluate()
    did = registry.publish()
    assert did["decision"] == "published"
    assert "of version 1" in str(did["reason"])


def test_only_rows_after_what_the_champion_has_learnt_from_count(
    registry: Registry, plant: Callable[..., Planted]
) -> None:
    """The candidate's test period lies before the end of the champion's training: nothing there can be compared."""
    registry.register(plant(start_ms=START_MS + 10 * DAY_MS), 3)
    registry.evaluate()
    assert registry.publish()["decision"] == "published"
    candidate = registry.register(plant(), LEARNT)
    registry.evaluate()
    did = registry.publish()
    assert did["decision"] == "refused"
    assert "no test row of the candidate is later" in str(did["reason"])
    assert registry.aliases == {"champion": "1", "challenger": str(candidate.version)}


def test_part_of_the_period_is_compared_where_part_is_late_enough(
    registry: Registry, plant: Callable[..., Planted]
) -> None:
    """Test labels lie on days 18 and 19 of the candidate; the champion has learnt from those before its day 18."""
    registry.register(plant(start_ms=START_MS + DAY_MS), 3)
    registry.evaluate()
    registry.publish()
    registry.register(plant(), LEARNT)
    registry.evaluate()
    assert "on 120 rows of 120 profiles" in str(registry.publish()["reason"])
