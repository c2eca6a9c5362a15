"""The churn model as the road judges and publishes it: ranked, calibrated, and in slices of accounts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.charts import Calibration, Lift
from models.churn.features import LAST_ACTIVITY
from models.churn.scorer import ChurnScorer
from models.churn.training import ACCOUNT, labels_of
from models.classification import LIFT_SHARE, Classified, classified, log_loss
from models.judged import Figure, Judged, Slice
from models.training_set import Manifest

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MODEL, CANCELS = "model", "cancels within 30 days"
NEW_DAYS = 30
SLICED_BY = {"market": "market", "platform": "platform", "subscription_tier": "tier"}
DAYS_KNOWN = "days_known"
_SLICE_RESAMPLES = 200
_WEEK_MS = 7 * 86_400_000


def evaluate(folder: Path, manifest: Manifest, rows: pa.Table, seed: int) -> Judged:
    """Ranking and calibration of a saved model on the test rows, beside its baselines; accounts are drawn.

    Figures: AUC-PR, AUC, log loss (nats), expected calibration error and lift at 5 % of the model, `logistic_` and
    `last_activity_` of the baselines, `…_over_…` what the model is ahead by; `base_rate` is what AUC-PR a random order
    has, whose lift is 1.

    Raises:
        EmptyTrainingSetError, OneClassError, TrainingSetError: the test rows cannot be judged.
        ModelFolderError: the saved model is broken.
    """
    scorer = ChurnScorer.load(folder)
    truth = labels_of(rows, "test")
    scorers = {MODEL: scorer.probabilities(rows), **scorer.baselines(rows)}
    units = np.unique(rows[ACCOUNT].to_numpy(), return_inverse=True)[1]
    own, ahead = classified(truth, scorers, units, seed)
    flagged = scorers[MODEL] >= np.quantile(scorers[MODEL], 1 - LIFT_SHARE)
    figures = _figures(own, ahead) | _rates(truth, scorers[MODEL], flagged)
    slices = {name: _slice(mask, truth, scorers, units, flagged, seed) for name, mask in _masks(rows) if mask.any()}
    return Judged(
        Slice(len(truth), len(np.unique(units)), figures),
        slices,
        shown=("auc", "logistic_auc"),
        headline=(
            "auc_pr", "logistic_auc_pr", "last_activity_auc_pr", "auc_pr_over_logistic", "auc", "calibration_error",
            "lift_at_5", "base_rate",
        ),
        unit="accounts",
        charts={
            "calibration": Calibration(scorers[MODEL], truth, CANCELS),
            "lift": Lift(scorers[MODEL], truth, CANCELS, {name: scorers[name] for name in scorers if name != MODEL}),
        },
    )  # fmt: skip


def row_log_loss(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] nats that a saved model loses on each row."""
    return log_loss(labels_of(rows, "test"), ChurnScorer.load(folder).probabilities(rows))


def logistic_log_loss(folder: Path, manifest: Manifest, rows: pa.Table) -> Floats:
    """[rows] nats that the logistic regression of the candidate's training rows loses."""
    return log_loss(labels_of(rows, "test"), ChurnScorer.load(folder).baselines(rows)["logistic"])


def _figures(own: Mapping[str, Classified], ahead: Mapping[str, Classified]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for scorer, one in own.items():
        figures |= {("" if scorer == MODEL else f"{scorer}_") + name: value for name, value in vars(one).items()}
    for scorer, one in ahead.items():
        figures |= {f"{name}_over_{scorer}": value for name, value in vars(one).items()}
    return figures


def _rates(truth: Floats, given: Floats, flagged: Mask) -> dict[str, Figure]:
    """What came and what was said on average, and whom a campaign for the likeliest 5 % of all would reach."""
    left = truth > 0
    return {
        "base_rate": float(truth.mean()),
        "mean_probability": float(given.mean()),
        "flagged_share": float(flagged.mean()),
        "flagged_of_cancelled": float(flagged[left].mean()) if left.any() else float("nan"),
    }


def _slice(
    mask: Mask, truth: Floats, scorers: Mapping[str, Floats], units: npt.NDArray[np.int64], flagged: Mask, seed: int
) -> Slice:
    sliced = {name: scorers[name][mask] for name in (MODEL, "logistic")}
    own, _ = classified(truth[mask], sliced, units[mask], seed, _SLICE_RESAMPLES)
    rates = _rates(truth[mask], scorers[MODEL][mask], flagged[mask])
    return Slice(int(mask.sum()), len(np.unique(units[mask])), _figures(own, {}) | rates)


def _masks(rows: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Slices of the rows, by name: market, platform, tier, new and old accounts, watching or not."""
    for column, called in SLICED_BY.items():
        if column in rows.column_names:
            values = np.array(["unknown" if value is None else value for value in rows[column].to_pylist()])
            for value in np.unique(values):
                yield f"{called} {value}", values == value
    if DAYS_KNOWN in rows.column_names:
        known = rows[DAYS_KNOWN].to_numpy()
        yield f"known under {NEW_DAYS} days", known < NEW_DAYS
        yield f"known {NEW_DAYS} days and more", known >= NEW_DAYS
    age_ms = rows[LAST_ACTIVITY].cast(pa.float64()).to_numpy()
    recent = np.nan_to_num(age_ms, nan=np.inf) < _WEEK_MS
    yield "watched within 7 days", recent
    yield "not watched for 7 days", ~recent
