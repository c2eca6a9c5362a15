"""Boosted trees on the same road: trained by Ray Train, killed and gone on with, judged, published, or refused."""

import time
from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from mlflow import MlflowClient

from models.errors import OneClassError
from pipelines.evaluate import evaluate
from pipelines.publish import publish
from pipelines.report import StationReport
from pipelines.train import train
from pipelines.train_epochs import recorded_epochs
from tests.models.churn.planted import DAY_MS, START_MS, write_training_set
from tests.pipelines.ray_processes import kill_a_train_worker

MODEL = "churn"
QUICK = {"epochs": 3, "patience": 3, "rounds_per_epoch": 10}
MANY = 30  # epochs enough that a training that is killed after two has not come to its end meanwhile

pytestmark = pytest.mark.usefixtures("ray_session")


@dataclass(frozen=True)
class Shop:
    """A training set, an MLflow and a place for checkpoints."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def train(self, training_set: Path | None = None, workers: int = 1, **changes: float) -> StationReport:
        return train(
            MODEL,
            training_set or self.folder / "set",
            tracking_uri=self.uri,
            storage=self.folder / "trainings",
            configuration={**QUICK, **changes},
            workers=workers,
        )

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    @property
    def versions(self) -> int:
        return len(self.client.search_model_versions(f"name = '{MODEL}'"))

    def curve(self, report: StationReport, metric: str) -> list[float]:
        history = self.client.get_metric_history(str(report.wrote["run"]), metric)
        return [point.value for point in sorted(history, key=lambda point: point.step)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Shop, StationReport]:
    shop = Shop(tmp_path_factory.mktemp("churn"))
    write_training_set(shop.folder / "set")
    return shop, shop.train()


def test_the_whole_road_to_champion(trained: tuple[Shop, StationReport]) -> None:
    shop, report = trained
    assert report.did["epochs"] == 3
    did = evaluate(MODEL, tracking_uri=shop.uri).did
    assert did["accounts"] == 250
    assert float(did["test_auc_pr"]) > float(did["test_logistic_auc_pr"])
    metrics = shop.client.get_run(str(report.wrote["run"])).data.metrics
    assert metrics["test_slice_market_US_rows"] == 252
    assert metrics["test_slices_auc_least"] < metrics["test_slices_auc_greatest"]
    plots = {one.path for one in shop.client.list_artifacts(str(report.wrote["run"]), "plots")}
    assert {"plots/test_slices.png", "plots/test_calibration.png", "plots/test_lift.png"} <= plots

    # A second test period that starts later than all that the first version has learnt from.
    published = publish(MODEL, tracking_uri=shop.uri)
    assert published.read["opponent"] == "logistic regression"
    version = shop.client.get_model_version(MODEL, "1")
    assert version.tags["gate.metric"] == "log_loss"
    assert version.tags["gate.decision"] == published.did["decision"]
    assert int(version.tags["label_horizon_ms"]) == START_MS + (82 + 30) * DAY_MS


def test_mlflow_asks_it_by_its_signature(trained: tuple[Shop, StationReport]) -> None:
    shop, _ = trained
    served = mlflow.pyfunc.load_model(shop.client.get_model_version_download_uri(MODEL, "1"))
    frame = pq.read_table(shop.folder / "set" / "split=test", partitioning=None).slice(0, 4).to_pandas()
    asked = frame[served.metadata.get_input_schema().input_names()]
    asked = asked.astype({"user_viewing_history__age_ms": float})  # MLflow makes no double of a whole number
    answer = served.predict(asked, params={"reasons": 2})
    assert all(0 < probability < 1 for probability in answer["probability"])
    assert [len(reasons) for reasons in answer["reasons"]] == [2, 2, 2, 2]


def test_two_workers_of_whom_one_is_killed_grow_nearly_the_trees_of_one(
    trained: tuple[Shop, StationReport], tmp_path: Path
) -> None:
    shop, report = trained
    other = Shop(tmp_path)
    killer = _kill_a_worker_after_two_epochs.remote(str(tmp_path / "trainings"))
    together = other.train(shop.folder / "set", workers=2, epochs=MANY, patience=MANY)
    assert ray.get(killer)
    assert together.did["epochs"] == MANY
    assert int(together.did["resumed from epoch"]) >= 2
    for metric in ("train_loss", "validation_auc"):
        alone = shop.curve(report, metric)
        assert other.curve(together, metric)[: len(alone)] == pytest.approx(alone, abs=0.03)


@ray.remote(num_cpus=0)
def _kill_a_worker_after_two_epochs(storage: str, timeout_s: float = 240) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if any(len(recorded_epochs(folder)) >= 2 for folder in Path(storage).glob("churn-*")):
            break
        time.sleep(0.02)
    return kill_a_train_worker()


def test_rows_nothing_can_be_learnt_from_leave_no_version(ray_session: None, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    write_training_set(tmp_path / "set", accounts=30)
    path = tmp_path / "set" / "split=train" / "part-0.parquet"
    rows = pq.read_table(path, partitioning=None)
    stayed = pa.array([False] * len(rows))
    pq.write_table(rows.set_column(rows.column_names.index("churned"), "churned", stayed), path)
    with pytest.raises(OneClassError, match="train split has one class only: churned is False in all of its 300 rows"):
        shop.train()
    assert shop.versions == 0
    (run,) = shop.client.search_runs([shop.client.get_experiment_by_name(MODEL).experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["reel.failure"].startswith("the training set's train split has one class only")
