"""Training of the churn model: an epoch is a block of boosting rounds, judged by the validation rows.

Every worker encodes all rows, so that all have the same columns, and grows trees on its share: XGBoost adds the
workers' histograms of gradients up, so that all of them grow the same trees. Where the bins of a histogram are cut
depends a little on who holds which rows, so N workers give nearly the trees of one, not to the bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost
from xgboost import collective

from models.churn.calibration import Calibration, chosen
from models.churn.columns import Encoding
from models.churn.features import COLUMNS
from models.churn.logistic import LogisticRegression
from models.churn.model import ChurnConfig, ChurnModel, booster_parameters, take_rounds
from models.churn.scorer import ChurnScorer, LastActivity
from models.classification import Ranking, log_loss
from models.epochs import EpochTraining
from models.errors import EmptyTrainingSetError, OneClassError, TrainingSetError
from models.task import Place
from models.training_set import Manifest

Floats = npt.NDArray[np.float64]

LABEL, ACCOUNT, INSTANT, WEIGHT = "churned", "user_id", "event_timestamp", "weight"
WATCHED, BASELINE = "validation_auc_pr", "validation_logistic_auc_pr"


class ChurnTraining(EpochTraining):
    """Trees, the rows they grow on and how far they have come."""

    def __init__(
        self, config: ChurnConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Encodes the rows and fits the baselines.

        Raises:
            EmptyTrainingSetError: a split has no row.
            OneClassError: nobody left in a split, or everybody.
            EmptyFeatureError: a feature is null in all train rows.
            TrainingSetError: a column is missing, or holds no label.
        """
        self.config, self.place = config, place
        train, validation = in_order(train, "train"), in_order(validation, "validation")
        truth, judged_truth = labels_of(train, "train"), labels_of(validation, "validation")
        weights = _weights_of(train)
        self._encoding = Encoding.of(train, COLUMNS)
        super().__init__(WATCHED, config, manifest, columns=", ".join(self._encoding.names))
        values, self._judged = self._encoding.values(train), self._encoding.values(validation)
        self._judged_truth, self._judged_units = judged_truth, validation[ACCOUNT].to_numpy()
        self._logistic = LogisticRegression.fit(values, truth, weights)
        self._last_activity = LastActivity.fit(train, truth, weights)
        self._baselines = {
            "logistic": self._ranked(self._logistic.probabilities(self._judged)),
            "last_activity": self._ranked(self._last_activity.probabilities(validation)),
        }
        self._rows, self._yes = len(train), int(truth.sum())
        mine = slice(place.rank, None, place.workers)
        self._truth, self._weights = truth[mine], weights[mine]
        self._matrix = xgboost.QuantileDMatrix(
            values[mine], self._truth, weight=self._weights, max_bin=config.bins, nthread=place.threads or None
        )
        rate = float(np.average(truth, weights=weights))
        self._parameters = booster_parameters(config, rate, place.threads, place.device)
        self._trees: bytes | None = None
        self._best_trees: bytes | None = None

    @property
    def facts(self) -> dict[str, int]:
        """Rows, those of who left, and the numbers that are made of a row."""
        return {
            "train_rows": self._rows,
            "train_cancelled": self._yes,
            "validation_rows": len(self._judged_truth),
            "validation_cancelled": int(self._judged_truth.sum()),
            "columns": len(self._encoding.names),
        }

    def _learn(self, epoch: int) -> float:
        """Takes a block of rounds; the mean loss in nats a row."""
        seed = int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0] >> 1)
        booster = take_rounds(self._parameters, self._matrix, self._trees, self.config.rounds_per_epoch, seed)
        self._trees = bytes(booster.save_raw("json"))
        return self._train_loss(booster)

    def _validate(self) -> dict[str, float]:
        assert self._trees is not None, "an epoch was learnt"
        given = self._model(self._trees, Calibration()).probabilities(self._judged)
        metrics = {f"validation_{name}": value for name, value in self._ranked(given).items()}
        for baseline, figures in self._baselines.items():
            metrics |= {f"validation_{baseline}_{name}": value for name, value in figures.items()}
        return metrics

    def _keep(self) -> None:
        self._best_trees = self._trees

    def _learnt(self) -> dict[str, Any]:
        return {"trees": (self._trees or b"").decode(), "best_trees": (self._best_trees or b"").decode()}

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self._trees = learnt["trees"].encode() or None
        self._best_trees = learnt["best_trees"].encode() or None

    def best(self) -> ChurnScorer:
        """The trees of the epoch that ranked the validation rows best, calibrated on these."""
        assert self._best_trees is not None, "an epoch comes first"
        raw = self._model(self._best_trees, Calibration())
        calibration, _ = chosen(raw.log_odds(self._judged), self._judged_truth, self._judged_units)
        model = self._model(self._best_trees, calibration)
        return ChurnScorer(model, self._encoding, self._logistic, self._last_activity)

    def _model(self, trees: bytes, calibration: Calibration) -> ChurnModel:
        booster = xgboost.Booster({"nthread": self.place.threads}, model_file=bytearray(trees))
        return ChurnModel(booster, self._encoding.names, calibration)

    def _ranked(self, given: Floats) -> dict[str, float]:
        ones, ranking = np.ones(len(given)), Ranking(self._judged_truth, given)
        loss = float(log_loss(self._judged_truth, given).mean())
        return {"auc_pr": ranking.average_precision(ones), "auc": ranking.auc(ones), "log_loss": loss}

    def _train_loss(self, booster: xgboost.Booster) -> float:
        """Mean loss over the rows of all workers, of log-odds as they are: clipped, it could hide an overflow."""
        line = booster.predict(self._matrix, output_margin=True).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            losses = np.logaddexp(0, line) - self._truth * line
        sums = np.array([(losses * self._weights).sum(), self._weights.sum()])
        if self.place.workers > 1:
            sums = collective.allreduce(sums, collective.Op.SUM)
        return float(sums[0] / sums[1])


def in_order(rows: pa.Table, split: str) -> pa.Table:
    """The rows by account and instant: they come in any order, and which of them a tree sees is drawn by their places.

    Raises:
        TrainingSetError: a column that every training set of this model has is missing.
    """
    missing = [name for name in (ACCOUNT, INSTANT, LABEL, WEIGHT) if name not in rows.column_names]
    if missing:
        raise TrainingSetError(
            f"the {split} rows lack the columns {', '.join(missing)}; received {', '.join(rows.column_names)}"
        )
    return rows.sort_by([(ACCOUNT, "ascending"), (INSTANT, "ascending")])


def labels_of(rows: pa.Table, split: str) -> Floats:
    """[rows] 1 for who cancelled, else 0.

    Raises:
        EmptyTrainingSetError: there is no row.
        OneClassError: all have the same label.
        TrainingSetError: there is no label, or it is null somewhere.
    """
    if LABEL not in rows.column_names:
        raise TrainingSetError(f"the {split} rows lack the column {LABEL}; received {', '.join(rows.column_names)}")
    if len(rows) == 0:
        raise EmptyTrainingSetError(split)
    if rows[LABEL].null_count:
        raise TrainingSetError(f"{rows[LABEL].null_count} of {len(rows)} {split} rows have no {LABEL}; rebuild the set")
    truth = rows[LABEL].cast(pa.float64()).to_numpy()
    if truth.min() == truth.max():
        raise OneClassError(split, LABEL, len(truth), bool(truth[0]))
    return np.asarray(truth, np.float64)


def _weights_of(rows: pa.Table) -> Floats:
    weights = np.asarray(rows[WEIGHT].to_numpy(), np.float64)
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        raise TrainingSetError(
            f"{int(wrong.sum())} of {len(rows)} train rows have no {WEIGHT} above 0; rebuild the training set"
        )
    return weights
