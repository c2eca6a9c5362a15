"""Train: a training set becomes a run in MLflow and a registered model.

Input     a training set's folder (manifest, split=train, split=validation)
Does      trains models/NAME with Ray Train, a checkpoint an epoch; killed at any moment and run again, it goes on
Output    an MLflow run (parameters, curves, data set, plots) and one version of the registered model NAME
"""

import fcntl
import hashlib
import json
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import ray.train

from models.errors import ModelError
from models.task import Task, load_task
from models.training_set import Manifest, read_manifest
from pipelines.cluster import join_cluster
from pipelines.errors import ReelError
from pipelines.plots import learning_curve
from pipelines.report import StationReport, timed
from pipelines.signature import mlflow_signature
from pipelines.splits import require_splits
from pipelines.tracking import Tracking
from pipelines.train_epochs import RecordEpochs, recorded_epochs
from pipelines.train_worker import MODEL_FOLDER, Outcome, train_worker
from pipelines.trainers import mend_list_of_checkpoints, trainer_of
from pipelines.version import code_version

CHECKPOINTS_KEPT = 2
WORKER_RESTARTS = 3
# What Ray Train reads from the environment alone. An epoch's report waits for the controller's next look at the
# workers: at 2 s, its default, waiting took longer than learning. Workers may take long to start on a busy machine.
_RAY_TRAIN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
# What a step lets go of the next one needs again. By default glibc gives it back to the kernel, which clears it each
# time, and twice as often for a thread that is not a process's first: a tenth of the anomaly network's epoch. The pad
# is what keeps the heaps (of 64 MB) of such threads. One heap for all of them, whose lock they wait for 600 times a
# second, costs the recommendation's epoch 4 %.
_WORKER = {
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
_LOOK_S = 3.0  # between two looks at how far training has come
_ENVIRONMENT = ("ray", "torch", "xgboost", "lightgbm", "numpy", "pyarrow", "mlflow")


class TrainingFailedError(ReelError):
    """Workers died more often than they are restarted, or Ray Train itself failed."""


class TrainingRunsError(ReelError):
    """The same training is running in another process."""


class PurposeMismatchError(ReelError):
    """The training set was built for another purpose than the model's."""


@dataclass(frozen=True)
class Training:
    """One training: what is learnt, from what, where its state and its records are."""

    task: Task
    configuration: Mapping[str, int | float]
    manifest: Manifest
    training_set: Path
    storage: Path
    tracking: Tracking
    workers: int = 1
    use_gpu: bool = False
    on_progress: Callable[[int, int], None] = field(default=lambda done, total: None)

    @property
    def name(self) -> str:
        """The same for the same configuration and training set: what makes a second run go on from the first."""
        decided_by = {"training_set": self.manifest.digest, **self.configuration}
        digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
        return f"{self.task.name}-{digest[:12]}"

    @property
    def folder(self) -> Path:
        """Where Ray Train keeps this training's checkpoints."""
        return self.storage / self.name


def train(
    model: str,
    training_set: Path,
    *,
    tracking_uri: str,
    storage: Path,
    configuration: Mapping[str, Any] | None = None,
    workers: int = 1,
    use_gpu: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StationReport:
    """Train `model` on the training set in a folder and register it, or find that this was done already.

    1. Open the run of this training in MLflow: a killed one's is gone on with.
    2. Train with Ray Train, from the last checkpoint if there is one.
    3. Log the curve and its picture.
    4. Register the best epoch's model: one insert, so that there is a whole version or none.
    5. Close the run.

    Args:
        model: the name of a folder of models/.
        training_set: a folder with a manifest; on a cluster, one that all nodes see.
        tracking_uri: MLflow's address.
        storage: where checkpoints go; on a cluster, a folder that all nodes see.
        configuration: hyperparameters over the model's defaults.
        workers: processes that train together.
        use_gpu: give each worker one GPU.
        on_progress: called now and then with (epochs taken, epochs at most), from another thread.

    Raises:
        ModelError: the training set, configuration or loss is at fault.
        TrainingFailedError: the workers are.
        TrainingRunsError: it runs already.
    """
    task = load_task(model)
    configured = task.configure(configuration or {})
    manifest = read_manifest(training_set, task.needs)
    require_purpose(task, manifest)
    tracking = Tracking(tracking_uri)
    training = Training(
        task,
        configured.as_dict(),
        manifest,
        training_set.resolve(),
        storage.resolve(),
        tracking,
        workers,
        use_gpu,
        on_progress,
    )
    with timed("train") as report, _alone(training.folder):
        report.read = {"training set": training_set.name, **{f"{name} rows": n for name, n in manifest.rows.items()}}
        run_id = tracking.open_run(model, training.name, {"reel.model": model, "reel.code_version": code_version()})
        known = tracking.version_of_run(model, run_id)
        if known is None:
            _train_and_register(training, run_id, report)
            known = tracking.version_of_run(model, run_id)
            assert known is not None
        else:
            report.did = {"already trained": training.name}
        tracking.end_run(run_id, "FINISHED")
        report.wrote = {"model": model, "version": str(known.version), "run": run_id}
    return report


def require_purpose(task: Task, manifest: Manifest) -> None:
    """The training set holds only rows of people who allow what the model needs them for.

    Raises:
        PurposeMismatchError: it was built for another purpose.
    """
    if manifest.purpose != task.purpose:
        raise PurposeMismatchError(
            f"{task.name} needs data that may be used for {task.purpose}: this training set was built for "
            f"{manifest.purpose}; build one with --purpose {task.purpose}"
        )


def _train_and_register(training: Training, run_id: str, report: StationReport) -> None:
    task, tracking = training.task, training.tracking
    try:
        _describe(training, run_id)
        with _shown(training, run_id):
            outcome, last_checkpoint = _fit(training)
        best = outcome.curve[outcome.best_epoch - 1]
        tracking.log_epochs(run_id, {int(epoch["epoch"]): epoch for epoch in outcome.curve})
        tracking.log_metrics(run_id, {f"best_{name}": value for name, value in best.items()})
        tracking.log_metrics(run_id, {"data_wait_share": outcome.data_wait_share, "training_s": outcome.took_s})
        figure = learning_curve(outcome.curve, task.watched, task.baseline, outcome.best_epoch, task.loss)
        tracking.log_figure(run_id, figure, "plots/learning_curve.png")
        with last_checkpoint.as_directory() as checkpoint:
            saved = Path(checkpoint) / MODEL_FOLDER
            signature = mlflow_signature(task.signature)
            tracking.register(task.name, run_id, saved, task.loader, signature, _version_tags(training))
    except (ModelError, ReelError) as error:
        tracking.log_tags(run_id, {"reel.failure": " ".join(str(error).split())})
        tracking.end_run(run_id, "FAILED")
        raise
    report.read |= outcome.facts
    report.did = {"resumed from epoch": outcome.resumed_from_epoch, "epochs": len(outcome.curve)}
    report.did |= {name: best[name] for name in ("epoch", task.watched, task.baseline)}
    report.did["share of time waiting for data"] = outcome.data_wait_share


def _describe(training: Training, run_id: str) -> None:
    """What the run is made with and of."""
    environment = {f"environment.{name}": version(name) for name in _ENVIRONMENT}
    environment["environment.python"] = platform.python_version()
    place = {"workers": training.workers, "use_gpu": training.use_gpu}
    training.tracking.log_params(run_id, training.configuration)
    training.tracking.log_tags(run_id, {**environment, **place})
    training.tracking.log_training_set(run_id, training.manifest, training.training_set)


def _version_tags(training: Training) -> dict[str, str]:
    """What evaluation and publishing need to know of the version."""
    return {
        "training": training.name,
        "training_set": str(training.training_set),
        "training_set_digest": training.manifest.digest,
        "label_horizon_ms": str(training.manifest.label_horizon_ms),
        "code_version": code_version(),
    }


def _fit(training: Training) -> tuple[Outcome, ray.train.Checkpoint]:
    """Run Ray Train to its end: what the training came to, and its last checkpoint.

    Raises:
        ModelError: whatever a worker foresaw.
        TrainingFailedError: workers died again and again.
    """
    require_splits(training.task, training.manifest, training.training_set)
    mend_list_of_checkpoints(training.folder)
    join_cluster()
    for name, value in _RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    if len(ray.nodes()) == 1:  # type: ignore[no-untyped-call]
        # It looks for nodes that a cloud takes back, in a process of its own: none is taken from one machine.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    callbacks: Any = [RecordEpochs(training.folder)]
    worker: Any = train_worker  # its type says that workers return nothing
    run_config: Any = ray.train.RunConfig  # to mypy it is the first API's
    trainer = trainer_of(training.task.library, training.workers)(
        worker,
        train_loop_config={
            "model": training.task.name,
            "configuration": dict(training.configuration),
            "training_set": str(training.training_set),
            "older_checkpoints": [str(path) for path in sorted(training.folder.glob("checkpoint_*"), reverse=True)],
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.workers, use_gpu=training.use_gpu, resources_per_worker=_share(training)
        ),
        run_config=run_config(
            name=training.name,
            storage_path=str(training.storage),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            failure_config=ray.train.FailureConfig(max_failures=WORKER_RESTARTS),
            callbacks=callbacks,
            worker_runtime_env={"env_vars": _WORKER},
        ),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        last = str(error).strip().splitlines()[-1]
        raise TrainingFailedError(
            f"training {training.name} failed after {WORKER_RESTARTS} restarts of its workers ({last}); "
            "run it again to go on from its last checkpoint"
        ) from error
    if isinstance(result.return_value, ModelError):
        raise result.return_value
    return result.return_value, result.checkpoint


def _share(training: Training) -> dict[str, float]:
    """What one worker reserves: at most one CPU."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    share = {"CPU": min(1.0, resources.get("CPU", 1) / training.workers)}
    return {**share, "GPU": 1} if training.use_gpu else share


@contextmanager
def _shown(training: Training, run_id: str) -> Iterator[None]:
    """Logs every epoch while the block runs, soon after it was reported, and calls `on_progress`."""
    over = threading.Event()

    def watch() -> None:
        shown = 0
        while not over.wait(_LOOK_S):
            epochs = recorded_epochs(training.folder)
            if len(epochs) > shown:
                training.tracking.log_epochs(run_id, epochs)
                shown = len(epochs)
            training.on_progress(shown, int(training.configuration["epochs"]))

    watcher = threading.Thread(target=watch, name="training-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the training for the length of the block; a killed process lets go of it by itself.

    Raises:
        TrainingRunsError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingRunsError(
                f"{folder.name} is being trained by another process; wait for it, or stop it"
            ) from None
        yield
