"""The ranker as it is saved, loaded and asked: a folder of two files, readable without any code of ours.

ranker.json       {"format": 1, "features": names of the matrix's columns}
trees.txt         LightGBM's own text
"""

import json
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import ModelFolderError
from models.ranker.features import NAMES, matrix

FORMAT = 1
RANKER_FILE, TREES_FILE = "ranker.json", "trees.txt"


def booster_of(trees: str) -> Any:
    """LightGBM's model from its own text."""
    return lightgbm.Booster(model_str=trees)


class Ranker:
    """Answers which of some titles a viewer would rather watch past the half, were they shown."""

    def __init__(self, trees: str) -> None:
        self.trees = trees
        self._booster = booster_of(trees)

    def score(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        """[rows] the higher, the earlier it should be shown; `rows` have the columns of `models.ranker.features`.

        Raises:
            TrainingSetError: a column is missing.
        """
        if len(rows) == 0:
            return np.empty(0)
        scores: npt.NDArray[np.float64] = self._booster.predict(matrix(rows), num_threads=1)
        return scores

    def save(self, folder: Path) -> None:
        """Writes the model's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TREES_FILE).write_text(self.trees)
        (folder / RANKER_FILE).write_text(json.dumps({"format": FORMAT, "features": NAMES}))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The ranker that `save` wrote into `folder`.

        Raises:
            ModelFolderError: the file is missing or broken, or of features or a format that this version does not have.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / RANKER_FILE).read_text())
            received, features = content["format"], tuple(content["features"])
            trees = (folder / TREES_FILE).read_text()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFolderError(f"{folder} does not hold a ranker ({error}); fetch or train it again") from error
        if (received, features) != (FORMAT, NAMES):
            raise ModelFolderError(
                f"{folder} holds a ranker of format {received} and {len(features)} features; this version reads format "
                f"{FORMAT} with the {len(NAMES)} of models/ranker/features.py; train it again"
            )
        # LightGBM ends the process, not just the call, on some texts that were cut short.
        if not trees.startswith("tree\n") or "end of trees" not in trees:
            raise ModelFolderError(f"{folder / TREES_FILE} is no whole text of trees; fetch or train it again")
        return cls(trees)
