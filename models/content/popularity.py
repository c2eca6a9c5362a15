"""The baseline for new titles: titles of genres whose titles many people watch first, the same list for everyone."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.content.titles import Title
from models.content.watches import Watches
from models.ranking import Scores


class GenrePopularity:
    """Scores a title by the mean number of viewers of the known titles of each of its genres, over its genres."""

    def __init__(self, viewers: Mapping[str, float]) -> None:
        """`viewers`: by genre, how many viewers a title of it has."""
        self.viewers = dict(viewers)

    @classmethod
    def of(cls, titles: Mapping[str, Title], learnt: Watches) -> "GenrePopularity":
        """From who watched what; every title watched must be described."""
        counts = np.bincount(learnt.title, minlength=len(learnt.titles))
        by_genre: dict[str, list[int]] = {}
        for content_id, count in zip(learnt.titles.tolist(), counts.tolist(), strict=True):
            for genre in titles[content_id].genres:
                by_genre.setdefault(genre, []).append(count)
        return cls({genre: float(np.mean(some)) for genre, some in sorted(by_genre.items())})

    def score(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> Scores:
        """[len(histories), len(candidates)]; 0 where no genre is known."""
        means = [np.mean([self.viewers.get(genre, 0.0) for genre in one.genres] or [0.0]) for one in candidates]
        return np.tile(np.array(means, np.float32), (len(histories), 1))
