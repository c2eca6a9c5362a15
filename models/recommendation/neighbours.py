"""Item-kNN: titles finished by the same viewers, the strongest simple baseline of next-title recommendation.

Cosine similarity of titles over viewers, shrunk where few viewers agree, and recent titles of the history weigh
more (Deshpande & Karypis, "Item-based top-N recommendation algorithms", TOIS 2004; shrinkage: Bell & Koren, 2007).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.ranking import Scores
from models.recommendation.batches import Sequences, Titles, Vocabulary


class ItemNeighbours:
    """Scores a title by its similarity to the titles of the history."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        train: Sequences,
        viewer_of_row: npt.NDArray[np.int64],
        neighbours: int = 50,
        shrinkage: float = 10.0,
        half_life: float = 10.0,
    ) -> None:
        """Counts co-watching in `train`, row i of which belongs to viewer `viewer_of_row[i]`.

        Args:
            vocabulary: the catalogue; its square must fit in memory (4 bytes a pair).
            train: rows to count.
            viewer_of_row: [rows].
            neighbours: most similar titles kept for each title.
            shrinkage: viewers that every pair is taken to lack.
            half_life: titles back in the history at which a title counts half.
        """
        self.vocabulary = vocabulary
        self._half_life = half_life
        watched = np.zeros((int(viewer_of_row.max(initial=-1)) + 1, len(vocabulary)), np.float32)
        for row in range(len(train)):
            watched[viewer_of_row[row], train.history(row)] = 1
            watched[viewer_of_row[row], train.label(row)] = 1
        both = watched.T @ watched
        viewers = np.sqrt(np.diag(both))
        self._similarity = both / (viewers[:, None] * viewers[None, :] + shrinkage)
        np.fill_diagonal(self._similarity, 0)
        if neighbours < len(vocabulary):
            weakest_kept = np.partition(self._similarity, -neighbours, axis=1)[:, -neighbours]
            self._similarity[self._similarity < weakest_kept[:, None]] = 0

    def score(self, histories: Sequence[Titles]) -> Scores:
        """[len(histories), titles] summed similarities."""
        scores = np.zeros((len(histories), len(self.vocabulary)), np.float32)
        for row, history in enumerate(histories):
            age = np.arange(len(history) - 1, -1, -1)
            scores[row] = (0.5 ** (age / self._half_life)).astype(np.float32) @ self._similarity[history]
        return scores
