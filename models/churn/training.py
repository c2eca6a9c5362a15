"""Training of the churn model: an epoch is a block of boosting rounds, judged by the validation rows.

Every worker encodes all rows, so that all have the same columns, and grows trees on its share: XGBoost adds the
workers' histograms of gradients up, so that all of them grow the same trees. Where the bins of a histogram are cut
depends a little on who holds which rows, so N workers give nearly the trees of one, not to the bit.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost
from xgboost import collective

from models.churn.calibration import Calibration, chosen
from models.churn.columns import Encoding
from models.churn.logistic import LogisticRegression
from models.churn.model import ChurnConfig, ChurnModel, booster_parameters, take_rounds
from models.churn.scorer import LAST_ACTIVITY, ChurnScorer, LastActivity
from models.classification import Ranking, log_loss
from models.errors import CheckpointMismatchError, DivergedError, EmptyTrainingSetError, OneClassError, TrainingSetError
from models.task import Place
from models.training_set import Manifest

Floats = npt.NDArray[np.float64]

LABEL, ACCOUNT, INSTANT, WEIGHT = "churned", "user_id", "event_timestamp", "weight"
HISTORY, ACCOUNT_SIGNS, INTERACTIONS, QUALITY = (
    "user_viewing_history", "churn_signals", "user_interaction_signals", "qoe_signals",
)  # fmt: skip
FEATURES = (
    *(f"{ACCOUNT_SIGNS}.{name}" for name in (
        "engagement_trend", "login_frequency_trend", "support_contact_count", "payment_failure_count",
        "viewing_hours_delta",
    )),
    *(f"{HISTORY}.{name}" for name in (
        "avg_session_duration", "completion_rate", "viewing_hours_per_dow", "preferred_content_type",
    )),
    *(f"{INTERACTIONS}.{name}" for name in ("click_through_rate", "search_frequency", "browse_depth")),
    *(f"{QUALITY}.{name}" for name in ("avg_qoe_score", "rebuffer_frequency")),
)  # fmt: skip
"""What is asked of the feature store, as `group.feature`."""
COLUMNS = (*(name.replace(".", "__") for name in FEATURES), LAST_ACTIVITY)
"""The columns that these become, and how long ago anything was watched."""
WATCHED, BASELINE = "validation_auc_pr", "validation_logistic_auc_pr"


class ChurnTraining:
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
        self._identity = {
            "training_set": manifest.digest,
            "columns": ", ".join(self._encoding.names),
            **config.as_dict(),
        }
        self.curve: list[dict[str, float]] = []
        self.best_epoch = 0
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

    @property
    def done(self) -> bool:
        """Whether every epoch was taken, or none of the last `patience` was better than the best one."""
        taken = len(self.curve)
        return taken >= self.config.epochs or taken - self.best_epoch >= self.config.patience

    def epoch(self) -> dict[str, float]:
        """Takes a block of rounds and judges the trees so far: losses in nats per row, the baselines beside them.

        Raises:
            DivergedError: the loss is not finite.
        """
        epoch = len(self.curve) + 1
        seed = int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0] >> 1)
        booster = take_rounds(self._parameters, self._matrix, self._trees, self.config.rounds_per_epoch, seed)
        loss = self._train_loss(booster)
        if not math.isfinite(loss):
            raise DivergedError(epoch, loss, self.config.lr)
        self._trees = bytes(booster.save_raw("json"))
        model = self._model(self._trees, Calibration())
        given = model.probabilities(self._judged)
        metrics = {"epoch": float(epoch), "train_loss": loss}
        metrics |= {f"validation_{name}": value for name, value in self._ranked(given).items()}
        for baseline, figures in self._baselines.items():
            metrics |= {f"validation_{baseline}_{name}": value for name, value in figures.items()}
        if not self.curve or metrics[WATCHED] > self.curve[self.best_epoch - 1][WATCHED]:
            self.best_epoch, self._best_trees = epoch, self._trees
        self.curve.append(metrics)
        return metrics

    def best(self) -> ChurnScorer:
        """The trees of the epoch that ranked the validation rows best, calibrated on these."""
        assert self._best_trees is not None, "an epoch comes first"
        raw = self._model(self._best_trees, Calibration())
        calibration, _ = chosen(raw.log_odds(self._judged), self._judged_truth, self._judged_units)
        model = self._model(self._best_trees, calibration)
        return ChurnScorer(model, self._encoding, self._logistic, self._last_activity)

    def state(self) -> dict[str, Any]:
        """All that another process needs to go on from here: numbers and strings only."""
        return {
            "identity": self._identity,
            "trees": (self._trees or b"").decode(),
            "best_trees": (self._best_trees or b"").decode(),
            "best_epoch": self.best_epoch,
            "curve": self.curve,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned.

        Raises:
            CheckpointMismatchError: it was made with another configuration, other columns or another training set.
        """
        theirs = state.get("identity", {})
        differing = [name for name, value in self._identity.items() if theirs.get(name) != value]
        if differing or "trees" not in state:
            raise CheckpointMismatchError(differing or ["its contents"])
        self._trees = state["trees"].encode() or None
        self._best_trees = state["best_trees"].encode() or None
        self.best_epoch, self.curve = state["best_epoch"], list(state["curve"])

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
