"""Training of the shape network on segments' series, one epoch at a time: pure torch, in one process of several.

Every worker makes the contexts of all rows and takes its share of each batch, so that what a batch teaches does not
depend on how many there are. The random numbers of an epoch are a function of (seed, epoch) alone.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from models.anomaly.contexts import Contexts, Past, Prior, contexts_of
from models.anomaly.forecaster import Forecaster
from models.anomaly.predictive import Predictive
from models.anomaly.shape import ShapeConfig, ShapeNetwork, log_density, predicted
from models.epochs import EpochTraining
from models.errors import EmptyTrainingSetError, TrainingSetError
from models.task import Place
from models.training_set import Manifest

SEGMENT, INSTANT, VALUE = "channel_id", "event_timestamp", "tune_ins"
WATCHED, BASELINE = "validation_log_density", "validation_seasonal_log_density"
_LARGEST_GRADIENT = 1.0
Rows = tuple[npt.NDArray[np.object_], npt.NDArray[np.int64], npt.NDArray[np.float64]]


class AnomalyTraining(EpochTraining):
    """The network, the contexts it learns from and how far it has come."""

    def __init__(
        self, config: ShapeConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Makes the contexts of all rows, validation's after those of train.

        Raises:
            EmptyTrainingSetError: a split has no row, or train none with enough values before it.
            TrainingSetError: a column is missing or has a null; a segment's value is the same in all rows.
            NotFiniteError: a value is infinite or not a number.
        """
        super().__init__(WATCHED, config, manifest)
        self.config, self.place = config, place
        self.device = torch.device(place.device)
        learnt, judged = series_of(train, "train"), series_of(validation, "validation")
        if np.ptp(learnt[2]) == 0:
            raise TrainingSetError(
                f"{VALUE} is {learnt[2][0]:g} in all {len(train)} train rows: there is no shape to learn; "
                "widen the period, or see what the training set's log holds"
            )
        self._prior = Prior.of(learnt[2])
        self._pasts: dict[str, Past] = {}
        self._contexts = contexts_of(*learnt, self._pasts, config.length, self._prior)
        self._judged = contexts_of(*judged, self._pasts, config.length, self._prior)
        self._values, self._judged_values = learnt[2], judged[2]
        self._rows = np.flatnonzero(self._contexts.is_known)
        if len(self._rows) == 0:
            raise EmptyTrainingSetError("train")
        unit = self._contexts.scale
        self._targets = ((self._values - unit.location) / unit.scale).astype(np.float32)
        self._baselines = {
            "seasonal": self._score(self._judged.seasonal),
            "last_value": self._score(self._judged.last_value),
        }
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = ShapeNetwork(config).to(self.device)
        self._replica = DistributedDataParallel(self.network) if place.workers > 1 else self.network
        self._optimizer = torch.optim.AdamW(self.network.parameters(), config.lr, weight_decay=config.weight_decay)
        self._best_weights = copy.deepcopy(self.network.state_dict())

    @property
    def facts(self) -> dict[str, int]:
        """Rows, those with enough values before them, and segments."""
        return {
            "train_rows": len(self._contexts),
            "train_contexts": len(self._rows),
            "validation_rows": len(self._judged),
            "segments": len(self._pasts),
        }

    def _validate(self) -> dict[str, float]:
        """Log densities in nats per value."""
        found = {WATCHED: self._score(predicted(self.network, self._judged, self.device))}
        return found | {f"validation_{name}_log_density": score for name, score in self._baselines.items()}

    def _keep(self) -> None:
        self._best_weights = copy.deepcopy(self.network.state_dict())

    def best(self) -> Forecaster:
        """The network of the best epoch, with every segment's past up to the end of validation."""
        network = ShapeNetwork(self.config)
        network.load_state_dict({name: value.cpu() for name, value in self._best_weights.items()})
        return Forecaster(network, self._pasts, self._prior)

    def _learnt(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "best_weights": self._best_weights,
            "optimizer": self._optimizer.state_dict(),
        }

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self.network.load_state_dict(learnt["network"])
        self._optimizer.load_state_dict(learnt["optimizer"])
        self._best_weights = {name: value.to(self.device) for name, value in learnt["best_weights"].items()}

    def _learn(self, epoch: int) -> float:
        """One pass over the contexts; the mean loss of a value over all workers, in nats of scaled values."""
        order = np.random.default_rng([self.config.seed, epoch]).permutation(self._rows)
        total = torch.zeros((), device=self.device)
        self.network.train()
        for start in range(0, len(order), self.config.batch_size):
            total += self._step(order[start : start + self.config.batch_size])
        if self.place.workers > 1:
            distributed.all_reduce(total)
        return float(total) / len(order)

    def _step(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Learns this worker's share of a batch; the share's summed loss."""
        mine = rows[self.place.rank :: self.place.workers]
        location, log_scale = self._replica(
            torch.from_numpy(self._contexts.windows[mine]).to(self.device),
            torch.from_numpy(self._contexts.side[mine]).to(self.device),
        )
        loss = -log_density(location, log_scale, torch.from_numpy(self._targets[mine]).to(self.device)).sum()
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over workers: the factor makes that the mean over the whole batch.
        (loss * self.place.workers / len(rows)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        return loss.detach()

    def _score(self, given: Predictive) -> float:
        return float(given.log_density(self._judged_values).mean())


def series_of(rows: pa.Table, split: str) -> Rows:
    """(segment, instant in ms, value) of each row, [rows] each.

    Raises:
        EmptyTrainingSetError: there is no row.
        TrainingSetError: a column is missing or has a null.
    """
    missing = [name for name in (SEGMENT, INSTANT, VALUE) if name not in rows.column_names]
    if missing:
        raise TrainingSetError(f"the {split} rows lack {', '.join(missing)}; build the training set again")
    if len(rows) == 0:
        raise EmptyTrainingSetError(split)
    for name in (SEGMENT, INSTANT, VALUE):
        if rows[name].null_count:
            raise TrainingSetError(
                f"{name} is null in {rows[name].null_count} of {len(rows)} {split} rows; leave what is not known out"
            )
    instants = rows[INSTANT].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_numpy()
    segments = np.array(rows[SEGMENT].to_pylist(), dtype=object)
    return segments, instants.astype(np.int64), rows[VALUE].cast(pa.float64()).to_numpy().astype(np.float64)


def contexts_and_values(forecaster: Forecaster, rows: pa.Table) -> tuple[Contexts, npt.NDArray[np.float64]]:
    """Of test rows, after the past that the forecaster keeps.

    Raises:
        EmptyTrainingSetError, TrainingSetError: as `series_of`.
    """
    segments, at_ms, values = series_of(rows, "test")
    return forecaster.contexts(segments, at_ms, values), values
