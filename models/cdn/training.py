"""Training of the quality model: an epoch is a block of boosting rounds, judged by the validation rows.

The trees are LightGBM's: with several workers each holds a share of the rows, and histograms are added up.
"""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa

from models.cdn.features import COLUMNS
from models.cdn.off_policy import Floats
from models.cdn.quality import QualityConfig, QualityModel
from models.cdn.rows import NETWORK_REGION, prepared, running_policy, scores_of
from models.churn.columns import Encoding
from models.epochs import EpochTraining
from models.task import Place
from models.training_set import Manifest
from models.trees import booster_of

WATCHED, BASELINE = "validation_r2", "validation_network_mean_r2"


class QualityTraining(EpochTraining):
    """Trees, the rows they grow on and how far they have come."""

    def __init__(
        self, config: QualityConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Encodes the rows.

        Raises:
            EmptyTrainingSetError: a split has no row with a score.
            EmptyFeatureError: a feature is null in all train rows.
            TrainingSetError: a column is missing.
        """
        self.config, self.place = config, place
        train, validation = prepared(train, "train"), prepared(validation, "validation")
        self._encoding, self._running = Encoding.of(train, COLUMNS), running_policy(train)
        super().__init__(WATCHED, config, manifest, columns=", ".join(self._encoding.names))
        truth, self._truth = scores_of(train), scores_of(validation)
        self._judged = self._encoding.values(validation)
        self._baseline = _r2(self._truth, _network_means(train, truth, validation))
        self._rows = len(train)
        mine = slice(place.rank, None, place.workers)
        self._values, self._targets = self._encoding.values(train)[mine], truth[mine]
        self._parameters = {
            "objective": "regression",
            "num_leaves": config.leaves,
            "learning_rate": config.lr,
            "min_data_in_leaf": config.leaf_rows,
            "lambda_l2": config.ridge,
            "seed": config.seed,
            "num_threads": place.threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            **({"tree_learner": "data", "pre_partition": True} if place.workers > 1 else {}),
        }
        self._connected: lightgbm.Booster | None = None
        self._trees = self._best_trees = ""

    @property
    def facts(self) -> dict[str, int]:
        """Rows, networks, and the numbers that are made of a row."""
        return {
            "train_rows": self._rows,
            "validation_rows": len(self._truth),
            "networks": len(self._running.networks),
            "columns": len(self._encoding.names),
        }

    def _learn(self, epoch: int) -> float:
        """Takes a block of rounds; the mean loss in squared points of the score."""
        before = booster_of(self._trees) if self._trees else None
        parameters = self._parameters | self._network()
        rows = lightgbm.Dataset(self._values, self._targets, params=self._parameters)
        booster = lightgbm.train(parameters, rows, self.config.rounds_per_epoch, init_model=before)
        self._connected = self._connected or booster
        self._trees = booster.model_to_string()
        return float(((np.asarray(booster.predict(self._values)) - self._targets) ** 2).mean())

    def _network(self) -> dict[str, Any]:
        """What LightGBM is told of the other workers: with the first block where they are, then only how many.

        Their connection lasts as long as the booster that made it is kept. Made anew for every block, it fails now and
        then: the port it listened on may still be held by connections just closed, or be somebody else's meanwhile.
        """
        network = self.place.network
        if self._connected is None or not network:
            return dict(network)
        return {"num_machines": network["num_machines"]}

    def _validate(self) -> dict[str, float]:
        predicted = np.asarray(booster_of(self._trees).predict(self._judged))
        return {WATCHED: _r2(self._truth, predicted), BASELINE: self._baseline}

    def _keep(self) -> None:
        self._best_trees = self._trees

    def _learnt(self) -> dict[str, Any]:
        return {"trees": self._trees, "best_trees": self._best_trees}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self._trees, self._best_trees = learnt["trees"], learnt["best_trees"]

    def best(self) -> QualityModel:
        """The trees of the epoch that explained the validation rows best."""
        assert self._best_trees, "an epoch comes first"
        booster = booster_of(self._best_trees)
        return QualityModel(booster, self._encoding, self._running, self.config.gamma)


def _r2(truth: Floats, predicted: Floats) -> float:
    """Share of the scores' variance that is explained; 0 where they do not vary."""
    spread = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((truth - predicted) ** 2).sum() / spread) if spread > 0 else 0.0


def _network_means(train: pa.Table, truth: Floats, rows: pa.Table) -> Floats:
    """[rows] the mean score of the train rows over the same network and region; the mean of all where there is none."""
    keys, which = np.unique(np.array([str(one) for one in train[NETWORK_REGION].to_pylist()]), return_inverse=True)
    means = dict(zip(keys, np.bincount(which, truth) / np.bincount(which), strict=True))
    return np.array([means.get(str(key), truth.mean()) for key in rows[NETWORK_REGION].to_pylist()])
