"""The baseline every recommender has to beat: most finished titles first, the same list for everyone."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.ranking import Scores
from models.recommendation.batches import Titles, Vocabulary


class Popularity:
    """Scores a title by how often it was finished in the training period, whoever asks."""

    def __init__(self, vocabulary: Vocabulary, finished: Mapping[str, int]) -> None:
        self.vocabulary = vocabulary
        self._counts = np.array([finished.get(title, 0) for title in vocabulary.content_ids], np.float32)

    def score(self, histories: Sequence[Titles]) -> Scores:
        """[len(histories), titles] counts."""
        return np.tile(self._counts, (len(histories), 1))
