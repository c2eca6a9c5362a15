"""Tuning: trials side by side, judged on validation rows alone, each a run below the tuning's; killed, it goes on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run

from models.errors import EmptyTrainingSetError
from models.task import load_task
from pipelines.hyperparameters import hyperparameters
from pipelines.report import StationReport
from pipelines.settings import Settings
from pipelines.tracking import Tracking
from pipelines.train import PurposeMismatchError
from pipelines.tune import tune
from tests.models.recommendation.planted import edit_manifest, write_training_set
from tests.pipelines.ray_processes import wait_for_the_end_of_session

MODEL = "recommendation"
WATCHED = load_task(MODEL).watched
QUICK = {"dim": 16, "heads": 1, "blocks": 1, "max_length": 20, "epochs": 4, "patience": 4, "judged_rows": 50}
DIVERGES = {**QUICK, "lr": 1e30}  # trials that draw another learning rate do not


class Workshop:
    """A training set without a test period, an MLflow and a place for trials."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.training_set, self.best = folder, folder / "set", folder / "tuned" / "best.yaml"
        write_training_set(self.training_set, viewers=40, titles=20, length=12)
        shutil.rmtree(self.training_set / "split=test")  # whoever looked would fail
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = Tracking(self.uri).client

    def tune(self, **changes: object) -> StationReport:
        order = {"trials": 3, "configuration": DIVERGES, **changes}
        where = {"tracking_uri": self.uri, "storage": self.folder / "tuning", "best_file": self.best}
        return tune(MODEL, self.training_set, **where, **order)  # type: ignore[arg-type]

    def runs(self) -> tuple[Run, list[Run]]:
        """The tuning's run, and those of its trials."""
        experiment = self.client.get_experiment_by_name(MODEL).experiment_id
        runs = self.client.search_runs([experiment], order_by=["attributes.run_name"])
        (parent,) = [run for run in runs if run.data.tags["reel.kind"] == "tuning"]
        return parent, [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def test_tries_logs_and_writes_the_best_down(ray_session: None, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    report = workshop.tune()
    parent, trials = workshop.runs()
    assert parent.info.status == "FINISHED"
    assert len(trials) == 3
    assert trials[0].data.params["lr"] == "1e+30"
    assert trials[0].info.status == "FAILED"
    assert "diverged" in trials[0].data.tags["reel.failure"]
    figures = {}
    for run in trials[1:]:
        assert run.data.tags["tuning.ended"] in ("done", "given up")
        history = workshop.client.get_metric_history(run.info.run_id, WATCHED)
        assert sorted(point.step for point in history) == list(range(1, len(history) + 1))
        figures[run.info.run_id] = max(point.value for point in history)
        assert run.data.metrics[f"best_{WATCHED}"] == figures[run.info.run_id]
    best = max(figures, key=lambda run_id: figures[run_id])
    assert report.did[WATCHED] == figures[best]

    written = yaml.safe_load(workshop.best.read_text())
    assert {name: str(value) for name, value in written.items()} == workshop.client.get_run(best).data.params
    assert hyperparameters(Settings(work_dir=tmp_path), MODEL, [str(workshop.best)]) == written
    assert parent.data.tags["training_set.purpose"] == "personalization"
    table = json.loads(Path(workshop.client.download_artifacts(parent.info.run_id, "tuning/trials.json")).read_text())
    assert [one[WATCHED] for one in table["trials"]] == sorted(figures.values(), reverse=True)

    again = workshop.tune()
    assert again.did["resumed"] == "yes"
    assert {**again.did, "resumed": "no"} == report.did
    assert [run.info.run_id for run in workshop.runs()[1]] == [run.info.run_id for run in trials]
    shutil.rmtree(workshop.training_set / "split=validation")
    with pytest.raises(EmptyTrainingSetError, match="validation"):
        workshop.tune()
    edit_manifest(workshop.training_set, purpose="analytics")
    with pytest.raises(PurposeMismatchError, match="personalization"):
        workshop.tune()


@pytest.mark.fault
def test_killed_in_the_middle_it_goes_on(ray_session: None, tmp_path: Path, project_root: Path) -> None:
    workshop, configuration = Workshop(tmp_path), {**QUICK, "epochs": 40, "patience": 40}
    order = {
        "training_set": str(workshop.training_set),
        "tracking_uri": workshop.uri,
        "folder": str(tmp_path),
        "configuration": configuration,
    }
    (tmp_path / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-m", "tests.pipelines.tune_once", str(tmp_path / "order.json")]
    first = subprocess.Popen(
        command, cwd=project_root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    _wait_for_epochs(tmp_path / "tuning", 3)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    wait_for_the_end_of_session(first.pid)
    assert not workshop.best.exists()

    assert workshop.tune(configuration=configuration, trials=2).did["resumed"] == "yes"
    assert workshop.best.exists()
    parent, trials = workshop.runs()
    assert (parent.info.status, len(trials)) == ("FINISHED", 2)
    for run in trials:
        steps = [point.step for point in workshop.client.get_metric_history(run.info.run_id, WATCHED)]
        assert sorted(steps) == list(range(1, len(steps) + 1))


def _wait_for_epochs(storage: Path, epochs: int, timeout_s: float = 200) -> None:
    """Until some trial has recorded so many epochs, and Ray Tune has noted where it stands."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        counts = [path.read_text().count("\n") for path in storage.glob("*.trials/*/epochs.jsonl")]
        if max(counts, default=0) >= epochs and list(storage.glob("*/experiment_state-*.json")):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {epochs} epochs under {storage} in {timeout_s} s")
