"""What decides what the ranker learns: LambdaRank on boosted trees (Burges, "From RankNet to LambdaRank to LambdaMART",
Microsoft Research, 2010), by LightGBM.
"""

from dataclasses import dataclass
from typing import Any

from models.configuration import Hyperparameters


@dataclass(frozen=True)
class RankerConfig(Hyperparameters):
    """Everything that decides what is learnt from a training set."""

    of = "the ranker"

    epochs: int = 30
    """Blocks of rounds at most."""
    rounds_per_epoch: int = 10
    """Trees a block."""
    patience: int = 5
    """Blocks without a better validation NDCG@10 after which training stops."""
    leaves: int = 7
    lr: float = 0.05
    least_tiles_per_leaf: int = 200
    features_per_tree: float = 0.8
    """Share of the features that a tree may use."""
    l2: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._at_least(1, "epochs", "rounds_per_epoch", "patience", "least_tiles_per_leaf")
        self._at_least(2, "leaves")
        self._at_least(0, "l2")
        self._require(self.lr > 0, "lr", "above 0")
        self._require(0 < self.features_per_tree <= 1, "features_per_tree", "above 0, to 1")

    def parameters(self, epoch: int) -> dict[str, Any]:
        """What LightGBM is told for the block `epoch`; the same whatever came before and however many threads."""
        return {
            "objective": "lambdarank",
            "num_leaves": self.leaves,
            "learning_rate": self.lr,
            "min_data_in_leaf": self.least_tiles_per_leaf,
            "feature_fraction": self.features_per_tree,
            "lambda_l2": self.l2,
            "seed": self.seed * 10_007 + epoch,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
