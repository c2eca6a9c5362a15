"""What one Ray Train worker does: read the training set, go on from the last checkpoint, take epochs until done.

Input     a training set's train and validation splits, a task's name and configuration
Does      epochs of `models.NAME`, each reported with its metrics
Output    after every epoch a checkpoint: `state.pt` to go on from; after the last one also `model/`, the best model
"""

import os
import pickle
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
from threadpoolctl import threadpool_limits

from models.errors import ModelError
from models.task import Library, Place, Task, Training, load_task
from models.training_set import read_manifest
from pipelines.splits import read_splits

STATE_FILE, MODEL_FOLDER = "state.pt", "model"


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    facts: dict[str, int]
    """What was read, by name."""
    resumed_from_epoch: int
    curve: list[dict[str, float]]
    best_epoch: int
    waited_s: float
    """How long the first worker waited for rows."""
    took_s: float
    """And how long it took in all."""

    @property
    def data_wait_share(self) -> float:
        """Of the worker's time, what it spent waiting for rows."""
        return self.waited_s / self.took_s


def train_worker(order: dict[str, Any]) -> Outcome | ModelError:
    """Train as `order` says: model, configuration, training_set, older_checkpoints.

    A foreseen failure is returned, not raised: it would happen again, and Ray Train restarts workers that raise.
    """
    began = time.perf_counter()
    try:
        task = load_task(order["model"])
        train, validation = read_splits(task, Path(order["training_set"]))
        waited_s = time.perf_counter() - began
        training = _start(task, order, train, validation)
        resumed_from = _resume(training, order["older_checkpoints"])
        while not training.done:
            _report(training, training.epoch())
        took_s = time.perf_counter() - began
        return Outcome(training.facts, resumed_from, training.curve, training.best_epoch, waited_s, took_s)
    except ModelError as error:
        return error


def _start(task: Task, order: dict[str, Any], train: pa.Table, validation: pa.Table) -> Training:
    context = ray.train.get_context()
    # Ray gives a worker one thread per CPU it reserves; while workers train, no one else uses this node's CPUs.
    threads = max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size())
    torch.set_num_threads(threads)
    # XGBoost takes no more threads than OpenMP has by default, whatever it is told: Ray makes that one a reserved CPU.
    threadpool_limits(threads, user_api="openmp")
    place = Place(
        context.get_world_rank(),
        context.get_world_size(),
        str(ray.train.torch.get_device()),
        threads,
        _network(task.library, context.get_world_size()),
    )
    manifest = read_manifest(Path(order["training_set"]), task.needs)
    return task.start(task.configure(order["configuration"]), manifest, train, validation, place)


def _network(library: Library, workers: int) -> dict[str, Any]:
    if library != "lightgbm" or workers == 1:
        return {}
    from ray.train.lightgbm import get_network_params

    return get_network_params()


def _resume(training: Training, older: list[str]) -> int:
    """Go on from Ray's checkpoint, else from the newest of `older` that is whole; the epoch it was of, 0 for none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            training.resume(_read(Path(folder)))
        return len(training.curve)
    for folder in older:
        try:
            state = _read(Path(folder))
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
            continue  # its upload was cut short
        training.resume(state)
        return len(training.curve)
    return 0


def _read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    return state


def _report(training: Training, metrics: dict[str, float]) -> None:
    """Tell Ray Train of an epoch; the first worker sends the checkpoint."""
    if ray.train.get_context().get_world_rank() > 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if training.done:  # until then the state holds it; to calibrate and to write it takes as long as some epochs do
            training.best().save(Path(scratch) / MODEL_FOLDER)
        torch.save(training.state(), Path(scratch) / STATE_FILE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(scratch))
