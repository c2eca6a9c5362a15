"""Training epoch by epoch: what every model does alike.

A curve of metrics, the best epoch by the watched one, an end (all epochs taken, or patience lost), and a state that
only the same configuration and training set take up again.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from models.errors import CheckpointMismatchError, DivergedError
from models.training_set import Manifest


class EpochTraining(ABC):
    """Base of every training; `models.task.Training` says how it is driven."""

    def __init__(self, watched: str, config: Any, manifest: Manifest, **identity: str) -> None:
        """
        Args:
            watched: the metric of the curve that chooses the epoch; higher is better.
            config: the model's `Hyperparameters`, `epochs`, `patience` and `lr` among them.
            manifest: of the training set.
            identity: what a checkpoint must have been made with besides: the columns' names, say.
        """
        self._watched = watched
        self._epochs, self._patience = int(config.epochs), int(config.patience)
        self._lr = float(config.lr)
        self._identity: Mapping[str, str | int | float] = {
            "training_set": manifest.digest, **identity, **config.as_dict()
        }  # fmt: skip
        self.curve: list[dict[str, float]] = []
        self.best_epoch = 0

    @property
    def done(self) -> bool:
        """Whether every epoch was taken, or none of the last `patience` was better than the best one."""
        taken = len(self.curve)
        return taken >= self._epochs or taken - self.best_epoch >= self._patience

    def epoch(self) -> dict[str, float]:
        """Takes one epoch and judges it: the mean loss, validation metrics, and the baselines' beside them.

        Raises:
            DivergedError: the loss is not finite, on every worker alike.
        """
        epoch = len(self.curve) + 1
        loss = self._learn(epoch)
        if not math.isfinite(loss):
            raise DivergedError(epoch, loss, self._lr)
        metrics = {"epoch": float(epoch), "train_loss": loss, **self._validate()}
        if not self.curve or metrics[self._watched] > self.curve[self.best_epoch - 1][self._watched]:
            self.best_epoch = epoch
            self._keep()
        self.curve.append(metrics)
        return metrics

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on from here: tensors, numbers and strings only."""
        return {
            "identity": dict(self._identity),
            "best_epoch": self.best_epoch,
            "curve": self.curve,
            "learnt": self._learnt(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned.

        Raises:
            CheckpointMismatchError: it was made with another configuration, columns or training set, or by other code.
        """
        theirs = state.get("identity", {})
        differing = [name for name, value in self._identity.items() if theirs.get(name) != value]
        if differing or "learnt" not in state:
            raise CheckpointMismatchError(differing or ["its contents"])
        self._take_up(state["learnt"])
        self.best_epoch, self.curve = state["best_epoch"], list(state["curve"])

    @abstractmethod
    def _learn(self, epoch: int) -> float:
        """One pass over the rows, or a block of boosting rounds; the mean loss over all workers."""

    @abstractmethod
    def _validate(self) -> dict[str, float]:
        """The validation metrics of what is learnt so far, the watched one and the baselines' among them."""

    @abstractmethod
    def _keep(self) -> None:
        """Remember what is learnt so far as the best."""

    @abstractmethod
    def _learnt(self) -> dict[str, Any]:
        """What is learnt so far, and the best of it."""

    @abstractmethod
    def _take_up(self, learnt: dict[str, Any]) -> None:
        """Inverse of `_learnt`."""
