"""The quality model: boosted trees that say the score a session would have over a network; and the policy on them.

Saved as files that need no code of ours:

description.json  {"format": 1, "architecture": "lightgbm-quality", "encoding", "networks", "shares", "gamma"}
booster.txt       LightGBM's own
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import lightgbm
import numpy as np
import pyarrow as pa

from models.cdn.off_policy import Floats
from models.cdn.policy import GAMMA, inverse_gap
from models.churn.columns import Encoding
from models.configuration import Hyperparameters
from models.saved import describe, described, whole
from models.trees import booster_of

FORMAT = 1
ARCHITECTURE = "lightgbm-quality"
DESCRIPTION_FILE, BOOSTER_FILE = "description.json", "booster.txt"
HIGHEST_SCORE = 100.0
ELSEWHERE = ""
"""The region under which the running policy's shares over all regions are kept."""


@dataclass(frozen=True)
class QualityConfig(Hyperparameters):
    """Everything that decides what is learnt from a training set, and how greedily it is used."""

    of = "the cdn model"

    epochs: int = 30
    """Blocks of boosting rounds, at most."""
    rounds_per_epoch: int = 20
    patience: int = 4
    """Epochs without a better validation metric after which training stops."""
    lr: float = 0.05
    leaves: int = 31
    leaf_rows: int = 50
    ridge: float = 1.0
    gamma: float = GAMMA
    """Of `models.cdn.policy`, per whole range of the score: an arm that is 10 points worse has 1 chance in 20 + K."""
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(1, "epochs", "rounds_per_epoch", "patience", "leaf_rows")
        self._at_least(0, "ridge", "gamma")
        self._at_least(2, "leaves")
        self._require(self.lr > 0, "lr", "above 0")


@dataclass(frozen=True)
class Running:
    """What the policy that made the log did: each network's share of its choices, by region."""

    networks: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]]
    """By region, and over all of them as `ELSEWHERE`."""

    def probabilities(self, regions: list[str]) -> Floats:
        """[rows, networks]; of a region it was never seen in what it does over all."""
        return np.array([self.shares.get(region, self.shares[ELSEWHERE]) for region in regions])


class QualityModel:
    """Trees, how rows become their numbers, and how much the policy on them explores."""

    def __init__(self, booster: lightgbm.Booster, encoding: Encoding, running: Running, gamma: float) -> None:
        self.booster, self.encoding, self.running, self.gamma = booster, encoding, running, gamma

    def scores(self, rows: pa.Table) -> Floats:
        """[rows] score expected of each session over its row's network, 0 to 100.

        Raises:
            TrainingSetError: a column is missing.
        """
        if len(rows) == 0:
            return np.empty(0)
        predicted = np.asarray(self.booster.predict(self.encoding.values(rows)), np.float64)
        return np.clip(predicted, 0.0, HIGHEST_SCORE)

    def policy(self, scores: Floats) -> Floats:
        """[rows, networks] probabilities from the scores expected over each network, [rows, networks]."""
        return inverse_gap(scores / HIGHEST_SCORE, np.ones(scores.shape, bool), self.gamma)

    def save(self, folder: Path) -> None:
        """Writes the model's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BOOSTER_FILE).write_text(self.booster.model_to_string())
        describe(
            folder / DESCRIPTION_FILE,
            FORMAT,
            ARCHITECTURE,
            encoding=self.encoding.as_dict(),
            networks=list(self.running.networks),
            shares={region: list(shares) for region, shares in self.running.shares.items()},
            gamma=self.gamma,
        )

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The model that `save` wrote.

        Raises:
            ModelFolderError: a file is missing or broken, or the format is one this version does not read.
        """
        folder = Path(folder)
        with whole(folder, "cdn model"):
            description = described(folder / DESCRIPTION_FILE, FORMAT, ARCHITECTURE)
            shares = {region: tuple(one) for region, one in description["shares"].items()}
            return cls(
                booster_of((folder / BOOSTER_FILE).read_text()),
                Encoding.from_dict(description["encoding"]),
                Running(tuple(description["networks"]), shares),
                float(description["gamma"]),
            )
