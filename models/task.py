"""What every model tells the road about itself: `models/NAME/task.py` holds one `TASK`.

The road (`pipelines/`) trains, records, judges and publishes by it alone: a new model is a new folder, with
`tests/models/NAME/planted.py` for the checks that all models must pass, and no other edit.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.purposes import Purpose
from models.errors import UnknownModelError
from models.judged import Judged
from models.training_set import Manifest

Library = Literal["torch", "xgboost", "lightgbm"]
Kind = Literal["string", "long", "double", "boolean"]


@dataclass(frozen=True)
class Place:
    """Which of the processes that train together this one is, and where its model lives."""

    rank: int = 0
    workers: int = 1
    device: str = "cpu"
    threads: int = 0
    """Processors it may use; 0: as many as there are."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """LightGBM's parameters for finding the others; the other libraries find them by themselves."""


class Configuration(Protocol):
    """Everything that decides what is learnt from a training set; `epochs` is among it, the most that are taken."""

    def as_dict(self) -> dict[str, int | float]:
        """Plain numbers by name."""
        ...


class Savable(Protocol):
    """A trained model."""

    def save(self, folder: Path) -> None:
        """Writes it as files that need no code of ours to be read: JSON, text, UBJSON, tensors; never pickled code."""
        ...


class Training(Protocol):
    """One process's share of a training: its driver takes epochs until `done` and stores `state` in between.

    An epoch is a pass over the rows, or of boosted trees a block of rounds.
    """

    curve: list[dict[str, float]]
    """Metrics of every epoch taken, the first epoch's first: `epoch`, `train_loss`, the watched one, the baseline's."""
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
class Column:
    """A column that a saved model takes or gives; `many`: a list in every row; `optional`: it may be missing."""

    name: str
    kind: Kind
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """How a saved model is asked: columns in, columns out, and parameters with their defaults."""

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]
    parameters: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """What a candidate must be better at than the champion, on the same rows, by more than noise.

    It is the mean over rows of one number, so that two models can be compared row by row: NDCG, log loss, regret.
    A figure that is no mean (AUC) has no such pairs; take a proper scoring rule in its place.
    """

    metric: str
    """As it is named in reasons: `ndcg_at_10`."""
    higher_is_better: bool
    values: Callable[[Path, Manifest, pa.Table], npt.NDArray[np.float64]]
    """(a saved model's folder, manifest, test rows) to the number of each row, [rows]. The manifest and rows are the
    candidate's, the folder may be an older champion's."""
    baseline: str
    """What the first champion has to beat."""
    baseline_values: Callable[[Path, Manifest, pa.Table], npt.NDArray[np.float64]]
    """The same of the baseline; what it needs to know of the training rows lies in the candidate's folder."""
    unit: str
    """The column of the rows whose values are drawn together: rows of one viewer resemble each other."""
    label_ms: Callable[[pa.Table], npt.NDArray[np.int64]]
    """[rows] from when on each row's label lies, ms since 1970: the row's instant, or its first label's time."""


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
    """Columns of the training set that training reads."""
    configure: Callable[[Mapping[str, Any]], Configuration]
    start: Callable[[Any, Manifest, pa.Table, pa.Table, Place], Training]
    """(configuration, manifest, train rows, validation rows, place) to a training."""
    evaluate: Callable[[Path, Manifest, pa.Table, int], Judged]
    """(a saved model's folder, manifest, test rows, seed of the intervals) to what it is worth. The rows have every
    column of the training set, those that tell slices apart among them."""
    gate: Gate
    loader: str
    """The module whose `_load_pyfunc` MLflow calls to load a saved model."""
    signature: Signature
    training_set: str | None = None
    """`MODULE:NAME` of the `features.training.TrainingSet` it learns from: a module of its own in the model's folder,
    loaded where a set is built, for declarations need Polars and models do not. None: `pipelines.training_set`."""
    needs: tuple[str, ...] = ()
    """What the manifest must hold beside what every manifest holds: `catalogue`, `popularity`."""
    library: Library = "torch"
    """Whose processes find each other when several train together."""
    loss: str = "training loss (nats per label)"
    """What `train_loss` is, with its unit, as a picture says it."""


def instants_ms(rows: pa.Table, column: str = "event_timestamp") -> npt.NDArray[np.int64]:
    """[rows] a column of instants in ms since 1970, UTC: `Gate.label_ms` of a declared training set."""
    instants = rows[column].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
    return np.asarray(instants.to_numpy(), dtype=np.int64)


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
