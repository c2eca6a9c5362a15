"""The ranker as it is saved, loaded and asked: a folder of two files, readable without any code of ours.

ranker.json       {"format": 2, "architecture": "lightgbm-lambdarank", "features": names of the matrix's columns,
                   "genres": {content id: genres} of the titles that viewers may have finished}
trees.txt         LightGBM's own text
"""

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import ModelFolderError
from models.ranker.features import NAMES, Genres, matrix
from models.saved import describe, described, whole
from models.trees import booster_of

FORMAT = 2
ARCHITECTURE = "lightgbm-lambdarank"
RANKER_FILE, TREES_FILE = "ranker.json", "trees.txt"


class Ranker:
    """Answers which of some titles a viewer would rather watch past the half, were they shown."""

    def __init__(self, trees: str, genres: Genres) -> None:
        """`trees`: LightGBM's text; `genres`: those of the titles it has learnt from, for viewers' histories."""
        self.trees = trees
        self.genres = genres
        self._booster = booster_of(trees)

    def score(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        """[rows] the higher, the earlier it should be shown; `rows` have the columns of `models.ranker.features`.

        Raises:
            TrainingSetError: a column is missing.
        """
        if len(rows) == 0:
            return np.empty(0)
        scores = np.asarray(self._booster.predict(matrix(rows, self.genres), num_threads=1), np.float64)
        return scores

    def save(self, folder: Path) -> None:
        """Writes the model's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TREES_FILE).write_text(self.trees)
        describe(folder / RANKER_FILE, FORMAT, ARCHITECTURE, features=NAMES, genres=self.genres)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The ranker that `save` wrote into `folder`.

        Raises:
            ModelFolderError: the file is missing or broken, or of features or a format that this version does not have.
        """
        folder = Path(folder)
        with whole(folder, "ranker"):
            description = described(folder / RANKER_FILE, FORMAT, ARCHITECTURE)
            features = tuple(description["features"])
            if features != NAMES:
                raise ModelFolderError(
                    f"{folder} holds a ranker of {len(features)} features; this version has the {len(NAMES)} of "
                    "models/ranker/features.py; train it again"
                )
            return cls((folder / TREES_FILE).read_text(), description["genres"])
