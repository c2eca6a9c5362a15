"""What decides what the ranker learns: LambdaRank on boosted trees (Burges, "From RankNet to LambdaRank to LambdaMART",
Microsoft Research, 2010), by LightGBM.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.errors import ConfigurationError


@dataclass(frozen=True)
class RankerConfig:
    """Everything that decides what is learnt from a training set."""

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
        for name, least in (("epochs", 1), ("rounds_per_epoch", 1), ("patience", 1), ("leaves", 2)):
            _require(getattr(self, name) >= least, name, getattr(self, name), f"at least {least}")
        _require(self.least_tiles_per_leaf >= 1, "least_tiles_per_leaf", self.least_tiles_per_leaf, "at least 1")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(0 < self.features_per_tree <= 1, "features_per_tree", self.features_per_tree, "above 0, to 1")
        _require(self.l2 >= 0, "l2", self.l2, "at least 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RankerConfig":
        """The configuration with `values` in place of defaults.

        Raises:
            ConfigurationError: a key is unknown, or a value is of the wrong type or outside its range.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        unknown = sorted(values.keys() - kinds.keys())
        if unknown:
            raise ConfigurationError(f"unknown settings of the ranker: {unknown}; it knows {sorted(kinds)}")
        for name, value in values.items():
            whole = kinds[name] is int
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise ConfigurationError(f"{name} must be a {'whole ' if whole else ''}number: received {value!r}")
        return cls(**values)

    def as_dict(self) -> dict[str, int | float]:
        """The configuration as plain numbers."""
        return asdict(self)

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


def _require(holds: bool, name: str, received: object, expected: str) -> None:
    if not holds:
        raise ConfigurationError(f"{name} must be {expected}: received {received}")
