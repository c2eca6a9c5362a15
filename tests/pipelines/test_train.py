"""Training through Ray Train and MLflow: whole, named when it fails, and unharmed by being killed."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import ray
import ray.train
import torch
from mlflow import MlflowClient
from ray.train.torch import TorchTrainer

from models.errors import (
    CheckpointMismatchError,
    ConfigurationError,
    DivergedError,
    EmptyTrainingSetError,
    ModelError,
    TrainingSetError,
    UnknownModelError,
)
from models.recommendation.recommender import Recommender
from pipelines.report import StationReport
from pipelines.tracking import Tracking
from pipelines.train import PurposeMismatchError, TrainingRunsError, train
from pipelines.train_worker import Outcome, train_worker
from pipelines.trainers import mend_list_of_checkpoints
from tests.models.recommendation.planted import edit_manifest, write_training_set
from tests.pipelines.ray_processes import kill_a_train_worker, wait_for_the_end_of_session
from tests.pipelines.registry import empty_mlflow

QUICK = {
    "dropout": 0,
    "dim": 16,
    "blocks": 1,
    "heads": 1,
    "max_length": 40,
    "epochs": 3,
    "patience": 3,
    "judged_rows": 100,
}

EPOCHS = 25  # enough that one that is killed after two has not come to its end meanwhile
LONG = {"epochs": EPOCHS, "patience": EPOCHS}


@dataclass(frozen=True)
class Shop:
    """A training set, an MLflow and a place for checkpoints of one test's own."""

    training_set: Path
    tracking_uri: str
    storage: Path
    on_progress: Callable[[int, int], None] = lambda done, total: None

    @classmethod
    def at(cls, folder: Path) -> "Shop":
        write_training_set(folder / "set", viewers=60, titles=40, length=20)
        return cls(folder / "set", empty_mlflow(folder), folder / "trainings")

    def train(self, workers: int = 1, model: str = "recommendation", **changes: object) -> StationReport:
        return train(
            model,
            self.training_set,
            tracking_uri=self.tracking_uri,
            storage=self.storage,
            configuration={**QUICK, **changes},
            workers=workers,
            on_progress=self.on_progress,
        )

    def checkpoints(self) -> list[str]:
        """Of its one training, the newest first."""
        (folder,) = _folders(self.storage)
        return [str(path) for path in sorted(folder.glob("checkpoint_*"), reverse=True)]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    @property
    def versions(self) -> int:
        return len(self.client.search_model_versions("name = 'recommendation'"))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop.at(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Shop, StationReport]:
    shop = Shop.at(tmp_path_factory.mktemp("trained"))
    return shop, shop.train()


def test_registers_a_version_that_answers(trained: tuple[Shop, StationReport]) -> None:
    shop, report = trained
    assert report.wrote["version"] == "1"
    assert report.did["epochs"] == 3
    tracking = Tracking(shop.tracking_uri)
    version = tracking.version("recommendation", None)
    assert version.tags["label_horizon_ms"] == str(
        json.loads((shop.training_set / "manifest.json").read_text())["split_ms"]["validation_end"]
    )
    with tracking.fetched(version) as folder:
        (answer,) = Recommender.load(folder).recommend([["title001", "title002"]], 5)
        assert not [path for path in folder.rglob("*") if path.suffix == ".pkl"]
    assert len(answer) == 5


def test_mlflow_itself_loads_the_version(trained: tuple[Shop, StationReport]) -> None:
    shop, _ = trained
    uri = shop.client.get_model_version_download_uri("recommendation", "1")
    served = mlflow.pyfunc.load_model(uri)
    answer = served.predict(pd.DataFrame({"history": [["title001"], []]}), params={"k": 3})
    assert [len(titles) for titles in answer["content_ids"]] == [3, 3]
    assert served.metadata.get_input_schema().input_names() == ["history"]


def test_logs_what_it_was_made_of(trained: tuple[Shop, StationReport]) -> None:
    shop, report = trained
    run = shop.client.get_run(str(report.wrote["run"]))
    assert run.info.status == "FINISHED"
    assert run.data.params["dim"] == "16"
    assert run.data.tags["training_set.snapshot.silver.playback"] == "7001"
    assert run.data.tags["training_set.excluded.no consent"] == "2"
    assert run.data.tags["training_set.purpose"] == "personalization"
    assert run.data.tags["environment.torch"] == torch.__version__.partition("+")[0]
    (logged,) = run.inputs.dataset_inputs
    assert json.loads(logged.dataset.profile)["rows"]["train"] == 60
    for name in ("train_loss", "validation_ndcg_at_10", "validation_popularity_ndcg_at_10", "validation_hr_at_10"):
        history = shop.client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [1, 2, 3], name
    files = {file.path for file in shop.client.list_artifacts(run.info.run_id, "plots")}
    assert files == {"plots/learning_curve.png"}


def test_the_same_training_again_is_found_not_repeated(trained: tuple[Shop, StationReport]) -> None:
    shop, first = trained
    again = shop.train()
    assert again.wrote == first.wrote
    assert "already trained" in again.did
    assert shop.versions == 1


@pytest.mark.fault
def test_two_workers_of_whom_one_is_killed_learn_from_the_same_batches_as_one(
    trained: tuple[Shop, StationReport], tmp_path: Path
) -> None:
    shop, alone = trained
    elsewhere = Shop(shop.training_set, empty_mlflow(tmp_path), tmp_path / "trainings")
    killer = _kill_a_worker_after_two_epochs.remote(str(elsewhere.storage))
    together = elsewhere.train(workers=2, **LONG)
    assert ray.get(killer)
    assert together.did["epochs"] == EPOCHS
    assert int(together.did["resumed from epoch"]) >= 2

    def losses(of: Shop, report: StationReport) -> list[float]:
        history = of.client.get_metric_history(str(report.wrote["run"]), "train_loss")
        assert sorted(point.step for point in history) == list(range(1, int(report.did["epochs"]) + 1))
        return [point.value for point in sorted(history, key=lambda point: point.step)]

    expected = losses(shop, alone)
    assert losses(elsewhere, together)[: len(expected)] == pytest.approx(expected, rel=1e-3)


@ray.remote(num_cpus=0)
def _kill_a_worker_after_two_epochs(storage: str) -> bool:
    """Waits for two epochs, then kills one of the processes that train; whether there was one."""
    _wait_for_epochs(Path(storage), 2)
    return kill_a_train_worker()


def test_on_one_machine_no_process_without_work_runs_beside_a_training(shop: Shop, ray_session: None) -> None:
    """Ray Train starts others by default, for which a worker on all processors waits (`pipelines.trainers`)."""
    seen: set[str] = set()

    def look(done: int, total: int) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.add(process.name())

    replace(shop, on_progress=look).train(**LONG)
    actors = {name for name in seen if name.startswith("ray::") and not name.endswith("Agent")} - {"ray::IDLE"}
    assert {name[:15] for name in actors} == {"ray::TrainContr", "ray::Synchroniz", "ray::RayTrainWo"}


def test_a_diverged_training_registers_nothing(trained: tuple[Shop, StationReport], tmp_path: Path) -> None:
    done, _ = trained
    shop = Shop(done.training_set, empty_mlflow(tmp_path), tmp_path / "trainings")
    with pytest.raises(DivergedError, match="lower the learning rate"):
        shop.train(lr=1e30)
    assert shop.versions == 0
    (run,) = shop.client.search_runs([shop.client.get_experiment_by_name("recommendation").experiment_id])
    assert run.info.status == "FAILED"
    assert "diverged" in run.data.tags["reel.failure"]


def test_takes_no_checkpoint_of_another_training(trained: tuple[Shop, StationReport], tmp_path: Path) -> None:
    shop, _ = trained
    error = _in_this_process(shop, shop.checkpoints(), tmp_path, lr=0.5)
    assert isinstance(error, CheckpointMismatchError)
    assert "lr" in str(error)


def test_goes_on_from_the_newest_checkpoint_that_is_whole(trained: tuple[Shop, StationReport], tmp_path: Path) -> None:
    """As if a kill had cut short the writing of Ray's list of checkpoints, and of the last one."""
    shop, _ = trained
    shutil.copytree(shop.storage, tmp_path / "left behind")
    (folder,) = _folders(tmp_path / "left behind")
    (snapshot,) = folder.glob("checkpoint_manager_snapshot.json")
    mend_list_of_checkpoints(folder)
    assert snapshot.exists(), "a whole one stays"
    snapshot.write_text(snapshot.read_text()[:100])
    mend_list_of_checkpoints(folder)
    assert not snapshot.exists()
    newest, before = sorted(folder.glob("checkpoint_*"), reverse=True)
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    outcome = _in_this_process(shop, [str(newest), str(before)], tmp_path)
    assert isinstance(outcome, Outcome)
    assert outcome.resumed_from_epoch == 2
    assert [epoch["epoch"] for epoch in outcome.curve] == [1, 2, 3]


def _in_this_process(shop: Shop, checkpoints: list[str], storage: Path, **changes: object) -> Outcome | ModelError:
    """What a worker comes to that finds these checkpoints, newest first."""
    order = {
        "model": "recommendation",
        "configuration": {**QUICK, **changes},
        "training_set": str(shop.training_set),
        "older_checkpoints": checkpoints,
    }
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=order,
        scaling_config=ray.train.ScalingConfig(num_workers=0),
        run_config=ray.train.RunConfig(storage_path=str(storage)),
    )
    came_to: Outcome | ModelError = trainer.fit().return_value
    return came_to


def test_refuses_what_cannot_be_trained_on(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"there is .*recommendation"):
        shop.train(model="recomendation")
    with pytest.raises(ConfigurationError, match="dimension"):
        shop.train(dimension=3)
    edit_manifest(shop.training_set, purpose="analytics")
    with pytest.raises(PurposeMismatchError, match="personalization"):
        shop.train()
    edit_manifest(shop.training_set, purpose="personalization", popularity=None)
    with pytest.raises(TrainingSetError, match="lacks popularity"):
        shop.train()
    with pytest.raises(TrainingSetError, match="no training set"):
        train("recommendation", tmp_path / "nowhere", tracking_uri=shop.tracking_uri, storage=shop.storage)
    assert shop.versions == 0


def test_refuses_an_empty_split_and_a_missing_column(shop: Shop) -> None:
    counts = json.loads((shop.training_set / "manifest.json").read_text())["rows"]
    edit_manifest(shop.training_set, rows={**counts, "train": 0})
    with pytest.raises(EmptyTrainingSetError, match="train split"):
        shop.train()
    edit_manifest(shop.training_set, rows=counts)
    for path in (shop.training_set / "split=train").glob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["label"]), path)
    with pytest.raises(TrainingSetError, match="lacks the columns label"):
        shop.train()
    assert shop.versions == 0


def test_a_worker_whose_node_does_not_see_the_training_set_says_so(tmp_path: Path) -> None:
    order = {"model": "recommendation", "training_set": str(tmp_path / "elsewhere")}
    error = train_worker(order)
    assert isinstance(error, TrainingSetError)
    assert f"no training set at {tmp_path / 'elsewhere'} on the node" in str(error)
    assert "must lie where all nodes see them" in str(error)


def test_only_one_process_trains_the_same(trained: tuple[Shop, StationReport]) -> None:
    import fcntl

    shop, _ = trained
    (folder,) = _folders(shop.storage)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingRunsError, match="another process"):
            shop.train()


def _folders(storage: Path) -> list[Path]:
    return [path for path in storage.iterdir() if path.is_dir()]


def _wait_for_epochs(storage: Path, epochs: int, timeout_s: float = 240) -> None:
    """Until Ray Train has recorded the checkpoints of so many epochs."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for snapshot in storage.glob("*/checkpoint_manager_snapshot.json"):
            with contextlib.suppress(ValueError):  # it is being written
                if json.loads(snapshot.read_text())["current_report_index"] >= epochs:
                    return
        time.sleep(0.02)
    raise TimeoutError(f"no {epochs} epochs under {storage} in {timeout_s} s")


@pytest.mark.fault
def test_killed_in_the_middle_it_goes_on(shop: Shop, ray_session: None, tmp_path: Path, project_root: Path) -> None:
    order = tmp_path / "order.json"
    order.write_text(
        json.dumps(
            {
                "training_set": str(shop.training_set),
                "tracking_uri": shop.tracking_uri,
                "storage": str(shop.storage),
                "configuration": {**QUICK, **LONG},
            }
        )
    )
    command = [sys.executable, "-m", "tests.pipelines.train_once", str(order)]
    first = subprocess.Popen(
        command, cwd=project_root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    _wait_for_epochs(shop.storage, 2)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert shop.versions == 0
    wait_for_the_end_of_session(first.pid)

    left_behind, store = tmp_path / "left behind", Path(shop.tracking_uri.removeprefix("sqlite:///"))
    shutil.copytree(shop.storage, left_behind / "trainings")
    shutil.copy(store, left_behind / "mlflow.db")
    _goes_on(shop)

    # Once more from where it was killed, as if the kill had also cut short the writing of Ray's list of checkpoints.
    shutil.rmtree(shop.storage)
    shutil.copytree(left_behind / "trainings", shop.storage)
    shutil.copy(left_behind / "mlflow.db", store)
    (snapshot,) = shop.storage.glob("*/checkpoint_manager_snapshot.json")
    snapshot.write_text(snapshot.read_text()[:100])
    _goes_on(shop)


def _goes_on(shop: Shop) -> None:
    """The training that was killed, run again in another process, comes to its end from where it was."""
    assert shop.versions == 0
    did = shop.train(**LONG).did
    assert 2 <= int(did["resumed from epoch"]) < EPOCHS
    assert did["epochs"] == EPOCHS
    assert shop.versions == 1
    experiment = shop.client.get_experiment_by_name("recommendation").experiment_id
    (run,) = shop.client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    steps = [point.step for point in shop.client.get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == list(range(1, EPOCHS + 1))
