"""Training of the ranker, a block of trees at a time, in one process.

LightGBM's own threads use the machine's cores. Where several workers train together each learns the same trees from
all rows (they are deterministic), so that a run's result does not depend on their number.
"""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from models.errors import CheckpointMismatchError, DivergedError, EmptyTrainingSetError, OneClassError
from models.ranker.features import NAMES
from models.ranker.model import RankerConfig
from models.ranker.ranker import Ranker, booster_of
from models.ranker.shown import LABEL, Requests
from models.task import Place
from models.training_set import Manifest

CUT = 10
WATCHED = f"validation_ndcg_at_{CUT}"
"""The metric that chooses the block; higher is better."""
BASELINE = f"validation_shown_ndcg_at_{CUT}"
"""The same of the order in which the titles were shown."""


class RankerTraining:
    """The trees so far, the requests they learn from and how far they have come."""

    def __init__(
        self, config: RankerConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Reads the rows.

        Raises:
            TrainingSetError: no request to learn from or to choose by, nothing or everything watched, a missing column.
        """
        self.config, self.place = config, place
        self._learnt, self._judged = _requests(train, "train"), _requests(validation, "validation")
        self._shown_metrics = {BASELINE: self._ndcg(self._judged.as_shown())}
        self._dataset: Any = None
        self._trees: list[str] = []
        self._identity = {"training_set": manifest.digest, "features": " ".join(NAMES), **config.as_dict()}
        self.curve: list[dict[str, float]] = []
        self.best_epoch = 0

    @property
    def facts(self) -> dict[str, int]:
        """What was read: requests and tiles, how many of these were watched, features that are null throughout."""
        return {
            "train_requests": len(self._learnt),
            "train_tiles": len(self._learnt.watched),
            "train_watched": int(self._learnt.watched.sum()),
            "validation_requests": len(self._judged),
            "features_without_a_value": int(np.isnan(self._learnt.features).all(axis=0).sum()),
        }

    @property
    def done(self) -> bool:
        """Whether every block was taken, or none of the last `patience` was better than the best one."""
        taken = len(self.curve)
        return taken >= self.config.epochs or taken - self.best_epoch >= self.config.patience

    def epoch(self) -> dict[str, float]:
        """Grows a block of trees and judges all so far: 1 - NDCG@10 of what is learnt, metrics, the shown order's.

        Raises:
            DivergedError: a score is not finite.
        """
        epoch = len(self.curve) + 1
        booster = self._grow(epoch)
        learnt = booster.predict(self._learnt.features)
        if not np.isfinite(learnt).all():
            raise DivergedError(epoch, float("nan"), self.config.lr)
        metrics = {
            "epoch": float(epoch),
            "train_loss": 1 - float(np.nanmean(self._learnt.ndcg_at(learnt, CUT))),
            WATCHED: self._ndcg(booster.predict(self._judged.features)),
            **self._shown_metrics,
        }
        self._trees.append(booster.model_to_string())
        if not self.curve or metrics[WATCHED] > self.curve[self.best_epoch - 1][WATCHED]:
            self.best_epoch = epoch
        self.curve.append(metrics)
        return metrics

    def best(self) -> Ranker:
        """The trees up to the block that ordered the validation requests best."""
        return Ranker(self._trees[self.best_epoch - 1])

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on from here: numbers and strings only."""
        return {
            "identity": self._identity,
            "trees": list(self._trees),
            "best_epoch": self.best_epoch,
            "curve": self.curve,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned.

        Raises:
            CheckpointMismatchError: it was made with another configuration, other features or another training set.
        """
        theirs = state["identity"]
        differing = [name for name, value in self._identity.items() if theirs.get(name) != value]
        if differing:
            raise CheckpointMismatchError(differing)
        self._trees = list(state["trees"])
        self.best_epoch = state["best_epoch"]
        self.curve = list(state["curve"])

    def _grow(self, epoch: int) -> Any:
        """All trees up to those of this block. From the text of those before, as a resumed training has them."""
        if self._dataset is None:
            self._dataset = lightgbm.Dataset(
                self._learnt.features,
                self._learnt.watched,
                group=self._learnt.sizes,
                feature_name=list(NAMES),
                free_raw_data=False,
                params={"verbosity": -1, "min_data_in_leaf": self.config.least_tiles_per_leaf},
            )
        before = booster_of(self._trees[-1]) if self._trees else None
        parameters = self.config.parameters(epoch)
        return lightgbm.train(parameters, self._dataset, self.config.rounds_per_epoch, init_model=before)

    def _ndcg(self, scores: Any) -> float:
        return float(np.nanmean(self._judged.ndcg_at(scores, CUT)))


def _requests(rows: pa.Table, split: str) -> Requests:
    if len(rows) == 0:
        raise EmptyTrainingSetError(split)
    requests = Requests.of(rows)
    watched = int(requests.watched.sum())
    if watched in (0, len(requests.watched)):
        raise OneClassError(split, LABEL, len(requests.watched), bool(watched))
    return requests
