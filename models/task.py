"""What every model tells the road about itself: `models/NAME/task.py` holds one `TASK`."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from features.purposes import Purpose
from models.errors import UnknownModelError
from models.training_set import Manifest


@dataclass(frozen=True)
class Place:
    """Which of the processes that train together this one is, and where its model lives."""

    rank: int = 0
    workers: int = 1
    device: str = "cpu"


class Configuration(Protocol):
    """Everything that decides what is learnt from a training set."""

    def as_dict(self) -> dict[str, int | float]:
        """Plain numbers by name."""
        ...


class Savable(Protocol):
    """A trained model."""

    def save(self, folder: Path) -> None:
        """Writes it as files that need no code of ours to be read."""
        ...


class Training(Protocol):
    """One process's share of a training: its driver takes epochs until `done` and stores `state` in between."""

    curve: list[dict[str, float]]
    """Metrics of every epoch taken, the first epoch's first."""
    best_epoch: int
    """The epoch `best` is from, counted from 1; 0 before the first."""

    @property
    def facts(self) -> dict[str, int]:
        """What was read, by name."""
        ...

    @property
    def done(self) -> bool:
        """Whether there is nothing left to take."""
        ...

    def epoch(self) -> dict[str, float]:
        """Takes one epoch and judges it."""
        ...

    def best(self) -> Savable:
        """The model of the best epoch."""
        ...

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on: tensors, numbers and strings only."""
        ...

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        ...


@dataclass(frozen=True)
class Task:
    """A model as the road sees it."""

    name: str
    purpose: Purpose
    """What the data it learns from must be allowed for."""
    watched: str
    """The validation metric that chooses the epoch; higher is better."""
    baseline: str
    """The same metric of the baseline, logged beside it."""
    columns: tuple[str, ...]
    """Columns of the training set that it reads."""
    configure: Callable[[Mapping[str, Any]], Configuration]
    start: Callable[[Any, Manifest, pa.Table, pa.Table, Place], Training]
    """(configuration, manifest, train rows, validation rows, place) to a training."""
    loader: str
    """The module whose `_load_pyfunc` MLflow calls to load a saved model."""


def model_names() -> tuple[str, ...]:
    """Every model there is: the folders beside this file that hold a task."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py")))


def load_task(name: str) -> Task:
    """The task of the model `name`.

    Raises:
        UnknownModelError: there is no such model.
    """
    if name not in model_names():
        raise UnknownModelError(name, model_names())
    task: Task = importlib.import_module(f"models.{name}.task").TASK
    return task
