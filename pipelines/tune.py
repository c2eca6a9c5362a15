"""Tune: several configurations of a model, the poor ones given up early, and the best written down.

Input     a training set (its train and validation rows; the test period is not opened), a declared search space
Does      Ray Tune with ASHA: a trial is one training, an epoch at a time; killed and run again, it goes on
Output    one run in MLflow with a run below it for every trial, and the best configuration as a YAML file
"""

import hashlib
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler

from models.errors import ModelError
from models.search import configurations
from models.task import Place, Task, Training, load_task
from models.training_set import Manifest, read_manifest
from pipelines.cluster import join_cluster
from pipelines.errors import ReelError, UsageError
from pipelines.quality.output import write_whole
from pipelines.report import StationReport, timed
from pipelines.splits import read_splits, require_splits
from pipelines.tracking import Tracking
from pipelines.train import require_purpose
from pipelines.train_worker import STATE_FILE
from pipelines.tune_records import (
    DONE,
    FAILURE,
    Trial,
    TrialRuns,
    folder_of,
    read_trials,
    write_epoch,
    write_outcome,
)
from pipelines.version import code_version

THREADS = 1  # of a trial: several at once use a machine better than one that is spread over it
_LOOK_S = 1.0  # between two looks at how far trials have come
KEPT_SHARE = 3  # one in three trials goes on at each rung (Li et al., "Massively parallel hyperparameter tuning", 2020)
FEWEST_EPOCHS = 2  # before a trial may be given up
# What Ray Tune reads from the environment alone: no file of its own for every trial's log and table, MLflow has them.
# It notes where it stands at every checkpoint, so that none is gone that its notes name, and would warn of the expense.
_RAY_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_STATE_FILES = "experiment_state-*.json"  # Ray Tune's own notes of how trials stand


class NoSearchSpaceError(UsageError):
    """A model was to be tuned whose task does not say what to vary."""


class TuningFailedError(ReelError):
    """Not one trial came to an end."""


@dataclass(frozen=True)
class Tuning:
    """One tuning: what is tried, on what, and where its state and its records are."""

    task: Task
    training_set: Path
    tried: Sequence[Mapping[str, Any]]
    name: str
    """The same for the same training set and configurations: what makes a second run go on from the first."""
    storage: Path

    @property
    def records(self) -> Path:
        """Where trials write what they have come to."""
        return self.storage / f"{self.name}.trials"

    def read(self) -> list[Trial]:
        """All trials as far as they have come."""
        return read_trials(self.records, self.tried, self.task.watched)


def tune(
    model: str,
    training_set: Path,
    *,
    tracking_uri: str,
    storage: Path,
    best_file: Path,
    configuration: Mapping[str, Any] | None = None,
    trials: int = 12,
    at_once: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StationReport:
    """Try configurations of `model` on the training set in a folder; judged on its validation rows only.

    1. Open the run in MLflow that has the trials' runs below it: a killed one's is gone on with.
    2. Run the trials; after each epoch the worse two of three that have come as far are given up.
    3. Log what was tried, the best first, and write the best down.

    Args:
        model: the name of a folder of models/.
        training_set: a folder with a manifest; on a cluster, one that all nodes see.
        tracking_uri: MLflow's address.
        storage: where trials keep their checkpoints; on a cluster, a folder that all nodes see.
        best_file: where the best configuration goes, for `reel train --config`.
        configuration: what all trials share, over the model's defaults.
        trials: configurations to try; the first is `configuration` itself, so that tuning cannot end below it.
        at_once: trials at the same time; None: one a processor.
        on_progress: called now and then with (trials done, trials).

    Raises:
        NoSearchSpaceError: the model's task declares none.
        ModelError: the training set or the configuration is at fault.
        PurposeMismatchError: the training set was built for another purpose.
        TuningFailedError: no trial came to an end.
    """
    tuning, manifest = _planned(model, training_set, storage, configuration or {}, trials)
    tracking = Tracking(tracking_uri)
    with timed("tune") as report:
        report.read = {"training set": training_set.name, "configurations": len(tuning.tried)}
        tags = {"reel.model": model, "reel.code_version": code_version(), "reel.kind": "tuning"}
        run_id = tracking.open_run(model, tuning.name, tags)
        tracking.log_training_set(run_id, manifest, tuning.training_set)
        runs = TrialRuns(tracking, model, run_id, tuning.name)
        with _shown(tuning, runs, on_progress):
            resumed = _run(tuning, at_once)
        report.did = {"resumed": "yes" if resumed else "no"}
        _conclude(tuning, tracking, run_id, runs, best_file, report)
    return report


def _planned(
    model: str, training_set: Path, storage: Path, configuration: Mapping[str, Any], trials: int
) -> tuple[Tuning, Manifest]:
    """What is going to be tried, after everything that can be wrong with it was looked for. Raises as `tune` does."""
    task = load_task(model)
    if not task.search_space:
        raise NoSearchSpaceError(f"{model} declares no search space; name what to vary in models/{model}/task.py")
    start = task.configure(configuration).as_dict()
    tried = configurations(start, task.search_space, trials, seed=int(start.get("seed", 0)))
    for one in tried:
        task.configure(one)
    manifest = read_manifest(training_set, task.needs)
    require_purpose(task, manifest)
    require_splits(task, manifest, training_set)
    return Tuning(task, training_set.resolve(), tried, _name(task, manifest, tried), storage.resolve()), manifest


def _conclude(
    tuning: Tuning, tracking: Tracking, run_id: str, runs: TrialRuns, best_file: Path, report: StationReport
) -> None:
    """Step 3. Raises TuningFailedError."""
    trials = tuning.read()
    runs.close(trials)
    ranked = sorted((one for one in trials if one.epochs and not one.failure), key=lambda one: -one.figure)
    if not ranked:
        tracking.end_run(run_id, "FAILED")
        raise TuningFailedError(f"no trial of {tuning.name} came to an end; the first: {trials[0].failure}")
    best = ranked[0]
    best_file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(best_file, _as_yaml(tuning, best))
    _log(tracking, run_id, ranked, best_file)
    tracking.end_run(run_id, "FINISHED")
    ended = Counter(one.said for one in trials)
    report.did |= {said: ended[said] for said in sorted(ended)}
    report.did |= {tuning.task.watched: best.figure}
    if trials[0] in ranked:
        report.did |= {"with the configuration begun with": trials[0].figure}
    report.did |= {f"best {key}": best.configuration[key] for key in sorted(tuning.task.search_space)}
    report.wrote = {"best": str(best_file), "run": run_id}


def _name(task: Task, manifest: Manifest, tried: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256(json.dumps([manifest.digest, tried], sort_keys=True).encode()).hexdigest()
    return f"{task.name}-tuning-{digest[:12]}"


def _run(tuning: Tuning, at_once: int | None) -> bool:
    """All trials to their end; whether an earlier run was gone on with."""
    join_cluster()
    for variable, value in _RAY_TUNE.items():
        os.environ.setdefault(variable, value)
    for place in range(len(tuning.tried)):
        folder_of(tuning.records, place).mkdir(parents=True, exist_ok=True)
    trainable: Any = ray_tune.with_resources(ray_tune.with_parameters(_trial, tuning=tuning), {"cpu": THREADS})
    space = {"place": ray_tune.grid_search(list(range(len(tuning.tried))))}
    folder = tuning.storage / tuning.name
    # Killed before it had noted how trials stand, it is begun anew.
    if ray_tune.Tuner.can_restore(str(folder)) and any(folder.glob(_STATE_FILES)):
        ray_tune.Tuner.restore(str(folder), trainable, param_space=space, restart_errored=True).fit()
        return True
    longest = max(int(one["epochs"]) for one in tuning.tried)
    asha = ASHAScheduler(max_t=longest, grace_period=min(FEWEST_EPOCHS, longest), reduction_factor=KEPT_SHARE)
    ray_tune.Tuner(
        trainable,
        param_space=space,
        tune_config=ray_tune.TuneConfig(
            metric=tuning.task.watched, mode="max", scheduler=asha, max_concurrent_trials=at_once
        ),
        run_config=ray_tune.RunConfig(
            name=tuning.name,
            storage_path=str(tuning.storage),
            verbose=0,
            checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=1),
        ),
    ).fit()
    return False


def _trial(config: dict[str, int], tuning: Tuning) -> None:
    """One training in one process, from its last checkpoint if there is one; a report an epoch.

    A foreseen failure is recorded, not raised: it would happen again.
    """
    place = config["place"]
    folder = folder_of(tuning.records, place)
    try:
        training = _start(tuning.task, tuning.training_set, tuning.tried[place])
        while not training.done:
            metrics = training.epoch()
            with tempfile.TemporaryDirectory() as scratch:
                torch.save(training.state(), Path(scratch) / STATE_FILE)
                write_epoch(folder, metrics)
                if training.done:  # said first: whoever reports the last epoch there can be is not heard of again
                    write_outcome(folder, {DONE: True})
                ray_tune.report(metrics, checkpoint=ray_tune.Checkpoint.from_directory(scratch))
    except ModelError as error:
        write_outcome(folder, {FAILURE: " ".join(str(error).split())})


def _start(task: Task, training_set: Path, configuration: Mapping[str, Any]) -> Training:
    torch.set_num_threads(THREADS)
    train, validation = read_splits(task, training_set)
    manifest = read_manifest(training_set, task.needs)
    training = task.start(task.configure(configuration), manifest, train, validation, Place(threads=THREADS))
    checkpoint = ray_tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as saved:
            training.resume(torch.load(Path(saved) / STATE_FILE, map_location="cpu", weights_only=True))
    return training


@contextmanager
def _shown(tuning: Tuning, runs: TrialRuns, on_progress: Callable[[int, int], None]) -> Iterator[None]:
    """Logs every epoch of every trial while the block runs, and calls `on_progress`."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            trials = tuning.read()
            runs.log(trials)
            on_progress(sum(one.done or one.failure is not None for one in trials), len(trials))

    watcher = threading.Thread(target=watch, name="tuning-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _as_yaml(tuning: Tuning, best: Trial) -> str:
    return (
        f"# The best of {len(tuning.tried)} configurations of {tuning.task.name} ({tuning.name}):\n"
        f"# {best.watched} {best.figure:.5f} on validation rows, in epoch {best.best_epoch}.\n"
        f"{yaml.safe_dump(dict(best.configuration), sort_keys=True)}"
    )


def _log(tracking: Tracking, run_id: str, ranked: Sequence[Trial], best_file: Path) -> None:
    """The best, and the table of all that were tried."""
    best = ranked[0]
    tracking.log_params(run_id, best.configuration)
    tracking.log_metrics(run_id, {f"best_{best.watched}": best.figure, "best_epoch": float(best.best_epoch)})
    table = [
        {one.watched: one.figure, "epoch": one.best_epoch, "ended": one.said, **one.configuration} for one in ranked
    ]
    tracking.client.log_dict(run_id, {"trials": table}, "tuning/trials.json")
    tracking.client.log_artifact(run_id, str(best_file), "tuning")
