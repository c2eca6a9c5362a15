"""Training of the ranker, a block of trees at a time, in one process.

LightGBM's own threads use the machine's cores. Where several workers train together each learns the same trees from
all rows (they are deterministic), so that a run's result does not depend on their number.
"""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from models.epochs import EpochTraining
from models.errors import EmptyTrainingSetError, OneClassError
from models.ranker.features import NAMES, Genres, genres_of
from models.ranker.model import RankerConfig
from models.ranker.ranker import Ranker
from models.ranker.shown import LABEL, Requests
from models.task import Place
from models.training_set import Manifest
from models.trees import booster_of

CUT = 10
WATCHED = f"validation_ndcg_at_{CUT}"
"""The metric that chooses the block; higher is better."""
BASELINE = f"validation_shown_ndcg_at_{CUT}"
"""The same of the order in which the titles were shown."""


class RankerTraining(EpochTraining):
    """The trees so far, the requests they learn from and how far they have come."""

    def __init__(
        self, config: RankerConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Reads the rows.

        Raises:
            TrainingSetError: no request to learn from or to choose by, nothing or everything watched, a missing column.
        """
        super().__init__(WATCHED, config, manifest, features=" ".join(NAMES))
        self.config, self.place = config, place
        self._genres: Genres = genres_of(train) if len(train) else {}
        self._learnt_from = _requests(train, "train", self._genres)
        self._judged = _requests(validation, "validation", self._genres)
        self._shown_metrics = {BASELINE: self._ndcg(self._judged.as_shown())}
        self._dataset: Any = None
        self._trees: list[str] = []

    @property
    def facts(self) -> dict[str, int]:
        """What was read: requests and tiles, how many of these were watched, features that are null throughout."""
        return {
            "train_requests": len(self._learnt_from),
            "train_tiles": len(self._learnt_from.watched),
            "train_watched": int(self._learnt_from.watched.sum()),
            "validation_requests": len(self._judged),
            "features_without_a_value": int(np.isnan(self._learnt_from.features).all(axis=0).sum()),
        }

    def _learn(self, epoch: int) -> float:
        """Grows a block of trees; 1 - NDCG@10 of what is learnt, not a number if a score is none."""
        booster = self._grow(epoch)
        self._trees.append(booster.model_to_string())
        learnt = booster.predict(self._learnt_from.features)
        if not np.isfinite(learnt).all():
            return float("nan")
        return 1 - float(np.nanmean(self._learnt_from.ndcg_at(learnt, CUT)))

    def _validate(self) -> dict[str, float]:
        return {WATCHED: self._ndcg(booster_of(self._trees[-1]).predict(self._judged.features)), **self._shown_metrics}

    def _keep(self) -> None:
        """Nothing: every block's trees are kept."""

    def best(self) -> Ranker:
        """The trees up to the block that ordered the validation requests best."""
        return Ranker(self._trees[self.best_epoch - 1], self._genres)

    def _learnt(self) -> dict[str, Any]:
        return {"trees": list(self._trees)}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self._trees = list(learnt["trees"])

    def _grow(self, epoch: int) -> Any:
        """All trees up to those of this block. From the text of those before, as a resumed training has them."""
        if self._dataset is None:
            self._dataset = lightgbm.Dataset(
                self._learnt_from.features,
                self._learnt_from.watched,
                group=self._learnt_from.sizes,
                feature_name=list(NAMES),
                free_raw_data=False,
                params={"verbosity": -1, "min_data_in_leaf": self.config.least_tiles_per_leaf},
            )
        before = booster_of(self._trees[-1]) if self._trees else None
        parameters = self.config.parameters(epoch)
        return lightgbm.train(parameters, self._dataset, self.config.rounds_per_epoch, init_model=before)

    def _ndcg(self, scores: Any) -> float:
        return float(np.nanmean(self._judged.ndcg_at(scores, CUT)))


def _requests(rows: pa.Table, split: str, genres: Genres) -> Requests:
    if len(rows) == 0:
        raise EmptyTrainingSetError(split)
    requests = Requests.of(rows, genres)
    watched = int(requests.watched.sum())
    if watched in (0, len(requests.watched)):
        raise OneClassError(split, LABEL, len(requests.watched), bool(watched))
    return requests
