"""Trials as they are recorded: each writes to a folder of its own, whoever waits for the tuning logs them in MLflow.

Files, because trials run in other processes, perhaps on other machines, and must not be lost when the tuning is killed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.tracking import Tracking
from pipelines.train_epochs import EPOCHS_FILE, recorded_epochs

OUTCOME_FILE = "outcome.json"
DONE, FAILURE = "done", "failure"


@dataclass(frozen=True)
class Trial:
    """One configuration, and how far its training has come."""

    place: int
    """In the order in which they were drawn, from 0."""
    configuration: Mapping[str, Any]
    epochs: Mapping[int, Mapping[str, float]]
    watched: str
    done: bool
    """Whether it was taken to its end."""
    failure: str | None

    @property
    def best_epoch(self) -> int:
        """The epoch whose watched metric is the greatest, the earliest of equals; 0 before the first."""
        return max(self.epochs, key=lambda epoch: (self.epochs[epoch][self.watched], -epoch), default=0)

    @property
    def figure(self) -> float:
        """The watched metric of that epoch."""
        return float(self.epochs[self.best_epoch][self.watched])

    @property
    def said(self) -> str:
        """How it ended, or that it did not."""
        return "failed" if self.failure else "done" if self.done else "given up"


def folder_of(records: Path, place: int) -> Path:
    """Where a trial writes."""
    return records / f"{place:03d}"


def write_epoch(folder: Path, metrics: Mapping[str, float]) -> None:
    """One more epoch of a trial."""
    with (folder / EPOCHS_FILE).open("a") as file:
        file.write(json.dumps(dict(metrics)) + "\n")


def write_outcome(folder: Path, outcome: Mapping[str, object]) -> None:
    """How a trial ended: {"done": true} or {"failure": why}."""
    draft = folder / f"{OUTCOME_FILE}.draft"
    draft.write_text(json.dumps(dict(outcome)))
    draft.replace(folder / OUTCOME_FILE)


def read_trials(records: Path, tried: Sequence[Mapping[str, Any]], watched: str) -> list[Trial]:
    """Every trial as far as it has come."""
    found = []
    for place, configuration in enumerate(tried):
        folder = folder_of(records, place)
        outcome = folder / OUTCOME_FILE
        said: dict[str, Any] = json.loads(outcome.read_text()) if outcome.exists() else {}
        epochs = recorded_epochs(folder)
        found.append(Trial(place, configuration, epochs, watched, DONE in said, said.get(FAILURE)))
    return found


class TrialRuns:
    """The trials' runs in MLflow, below the run of their tuning. Logging again what is there already adds nothing."""

    def __init__(self, tracking: Tracking, experiment: str, parent_run_id: str, name: str) -> None:
        self._tracking, self._experiment, self._parent, self._name = tracking, experiment, parent_run_id, name
        self._run_of: dict[int, str] = {}
        self._logged: dict[int, int] = {}  # epochs by trial

    def log(self, trials: Sequence[Trial]) -> None:
        """What the trials have come to since the last time."""
        for trial in trials:
            if len(trial.epochs) > self._logged.get(trial.place, 0):
                self._tracking.log_epochs(self._run(trial), trial.epochs)
                self._logged[trial.place] = len(trial.epochs)

    def close(self, trials: Sequence[Trial]) -> None:
        """Every trial has ended one way or the other."""
        self.log(trials)
        for trial in trials:
            run_id = self._run(trial)
            tags = {"tuning.ended": trial.said}
            if trial.failure:
                tags["reel.failure"] = trial.failure
            if trial.epochs:
                best = {f"best_{trial.watched}": trial.figure, "best_epoch": float(trial.best_epoch)}
                self._tracking.log_metrics(run_id, best)
            self._tracking.log_tags(run_id, tags)
            self._tracking.end_run(run_id, {"failed": "FAILED", "done": "FINISHED", "given up": "KILLED"}[trial.said])

    def _run(self, trial: Trial) -> str:
        if trial.place not in self._run_of:
            tags = {MLFLOW_PARENT_RUN_ID: self._parent, "reel.model": self._experiment, "reel.kind": "trial"}
            run_id = self._tracking.open_run(self._experiment, f"{self._name}-{trial.place:03d}", tags)
            self._tracking.log_params(run_id, trial.configuration)
            self._run_of[trial.place] = run_id
        return self._run_of[trial.place]
