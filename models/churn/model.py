"""The churn model: boosted trees and their calibration; numbers in, probabilities and reasons out.

It knows no task and no table: which columns, rows and labels there are is its callers'. Saved as two files that need no
code of ours:

description.json  {"format": 1, "architecture": "xgboost-calibrated", "features": [...], "calibration": {...}}
booster.json      XGBoost's own
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xgboost

from models.churn.calibration import Calibration
from models.configuration import Hyperparameters
from models.saved import describe, described, whole

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]

FORMAT = 1
ARCHITECTURE = "xgboost-calibrated"
DESCRIPTION_FILE, BOOSTER_FILE = "description.json", "booster.json"


@dataclass(frozen=True)
class ChurnConfig(Hyperparameters):
    """Everything that decides what is learnt from given rows."""

    of = "the churn model"

    epochs: int = 30
    """Blocks of boosting rounds, at most."""
    rounds_per_epoch: int = 20
    patience: int = 4
    """Epochs without a better validation metric after which training stops."""
    lr: float = 0.05
    depth: int = 4
    leaf_weight: float = 5.0
    """Least sum of p (1 - p) over the rows of a leaf."""
    rows_share: float = 0.8
    """Of the rows, drawn anew for every tree."""
    columns_share: float = 0.8
    """Of the columns, drawn anew for every tree."""
    ridge: float = 1.0
    """Penalty on the squares of the leaves."""
    bins: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(1, "epochs", "rounds_per_epoch", "patience", "depth")
        self._at_least(0, "leaf_weight", "ridge")
        self._at_least(2, "bins")
        for name in ("rows_share", "columns_share"):
            self._require(0 < getattr(self, name) <= 1, name, "above 0 and at most 1")
        self._require(self.lr > 0, "lr", "above 0")


@dataclass(frozen=True)
class Reason:
    """What one number of a row did to its log-odds, beside the mean of the training rows."""

    feature: str
    value: float | None
    """None where it is unknown, which can be a reason too."""
    log_odds: float


class ChurnModel:
    """Boosted trees on named numbers."""

    def __init__(self, booster: xgboost.Booster, features: Sequence[str], calibration: Calibration) -> None:
        self.booster, self.features, self.calibration = booster, tuple(features), calibration

    def log_odds(self, values: Values) -> Floats:
        """[rows] what the trees say, before calibration; `values` [rows, features], NaN where unknown."""
        return np.asarray(self.booster.inplace_predict(values, predict_type="margin"), np.float64)

    def probabilities(self, values: Values) -> Floats:
        """[rows] in 0..1, calibrated."""
        return self.calibration.probabilities(self.log_odds(values))

    def contributions(self, values: Values) -> Floats:
        """[rows, features + 1]: exact SHAP values of the log-odds, and last what all rows have in common.

        They sum to the log-odds (TreeSHAP: Lundberg et al., Nature Machine Intelligence 2020).
        """
        return np.asarray(self.booster.predict(xgboost.DMatrix(values), pred_contribs=True), np.float64)

    def reasons(self, values: Values, most: int = 3) -> list[list[Reason]]:
        """For each row the features that moved it farthest, in either direction, farthest first; `most` at most.

        Calibration only rises with the log-odds, so what drives them drives the probability.
        """
        found = []
        for row, own in zip(values, self.contributions(values)[:, :-1], strict=True):
            order = np.argsort(-np.abs(own), kind="stable")[:most]
            found.append(
                [
                    Reason(self.features[at], float(row[at]) if np.isfinite(row[at]) else None, float(own[at]))
                    for at in order
                    if own[at] != 0
                ]
            )
        return found

    def save(self, folder: Path) -> None:
        """Writes the model's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BOOSTER_FILE).write_bytes(self.booster.save_raw("json"))
        facts = {"features": list(self.features), "calibration": self.calibration.as_dict()}
        describe(folder / DESCRIPTION_FILE, FORMAT, ARCHITECTURE, **facts)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The model that `save` wrote.

        Raises:
            ModelFolderError: a file is missing or broken, or the format is one this version does not read.
        """
        folder = Path(folder)
        with whole(folder, "churn model"):
            description = described(folder / DESCRIPTION_FILE, FORMAT, ARCHITECTURE)
            booster = xgboost.Booster(model_file=bytearray((folder / BOOSTER_FILE).read_bytes()))
            return cls(booster, description["features"], Calibration.from_dict(description["calibration"]))


def booster_parameters(config: ChurnConfig, rate: float, threads: int = 0, device: str = "cpu") -> dict[str, Any]:
    """XGBoost's parameters for a yes whose share of the training rows is `rate`; `threads` 0: as many as there are."""
    return {
        "objective": "binary:logistic",
        "base_score": rate,
        "tree_method": "hist",
        "max_depth": config.depth,
        "learning_rate": config.lr,
        "min_child_weight": config.leaf_weight,
        "subsample": config.rows_share,
        "colsample_bytree": config.columns_share,
        "reg_lambda": config.ridge,
        "max_bin": config.bins,
        "nthread": threads,
        "device": device,
        "verbosity": 0,
    }


def take_rounds(
    parameters: Mapping[str, Any], rows: xgboost.DMatrix, before: bytes | None, rounds: int, seed: int
) -> xgboost.Booster:
    """The booster `before` (None: none yet) with so many more rounds on `rows`.

    A booster that goes on draws from a generator that nobody can save: one that is made anew for every block, with the
    block's seed, draws the same whether or not the training was interrupted in between.
    """
    parameters = {**parameters, "seed": seed}
    model = None if before is None else bytearray(before)
    booster = xgboost.Booster(parameters, [rows], model_file=model)
    first = booster.num_boosted_rounds()
    for number in range(first, first + rounds):
        booster.update(rows, number)
    return booster
