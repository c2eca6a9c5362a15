"""How the content model is judged: new titles only, ranked for each viewer by what was watched of the others.

Every candidate is a title of which no watch was learnt. A viewer's relevant titles are those of them that the viewer
watched: NDCG@10, HR@10 and recall@10 per viewer, beside random order, the popularity of the title's genres among what
was learnt, and the cosine of TF-IDF vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.content.titles import Title, Vocabulary
from models.content.watches import Cold
from models.ranking import Scores
from models.relevance import graded_ndcg_at, hit_among, recall_at

CUT = 10


class ColdScorer(Protocol):
    """Anything that ranks described titles for a viewer."""

    def score(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> Scores:
        """[len(histories), len(candidates)]; the higher, the likelier watched."""
        ...


class TfIdfCosine:
    """The cosine of a title's TF-IDF vector and the sum of those of the history.

    Term frequency is 0 or 1; idf is ln((1 + n) / (1 + titles with the token)) + 1; vectors have length 1 (as
    scikit-learn's `TfidfVectorizer` has them; Salton & Buckley, 1988).
    """

    def __init__(self, titles: Mapping[str, Title], learnt: Sequence[str]) -> None:
        self._titles = titles
        known = [titles[content_id] for content_id in learnt]
        self._vocabulary = Vocabulary.of(known)
        self._idf = np.log((1 + len(known)) / (1 + self._vocabulary.matrix(known).sum(axis=0))) + 1

    def score(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> Scores:
        """[len(histories), len(candidates)] from 0 to 1."""
        vectors = self._vectors(candidates)
        known = [[self._titles[name] for name in history if name in self._titles] for history in histories]
        profiles = [self._vectors(history).sum(axis=0) for history in known]
        scores: Scores = (_unit(np.array(profiles)) @ vectors.T).astype(np.float32)
        return scores

    def _vectors(self, titles: Sequence[Title]) -> npt.NDArray[np.float64]:
        return _unit(self._vocabulary.matrix(titles) * self._idf)


class RandomOrder:
    """Any order, another for every viewer."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def score(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> Scores:
        """[len(histories), len(candidates)] evenly drawn."""
        return np.random.default_rng(self._seed).random((len(histories), len(candidates)), np.float32)


def per_viewer(scorer: ColdScorer, cold: Cold, titles: Mapping[str, Title]) -> dict[str, npt.NDArray[np.float64]]:
    """NDCG@10, HR@10 and recall@10 of each viewer, [viewers] each, by name."""
    scores = scorer.score(cold.histories, [titles[content_id] for content_id in cold.candidates])
    scores = np.where(cold.seen, np.float32(-np.inf), scores)
    return {
        f"ndcg_at_{CUT}": graded_ndcg_at(scores, cold.relevant.astype(np.float64), CUT),
        f"hr_at_{CUT}": hit_among(scores, cold.relevant, CUT),
        f"recall_at_{CUT}": recall_at(scores, cold.relevant, CUT),
    }


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: npt.NDArray[np.float64] = np.divide(rows, lengths, out=np.zeros_like(rows, dtype=float), where=lengths > 0)
    return scaled
