"""From everything on offer to the few titles of a page, in three steps: each looks at fewer titles more closely.

1. Retrieve: the sequential recommender's likeliest next titles, and the content model's of those it does not know.
2. Rank: the ranker's order of these, by viewer, title and moment.
3. Diversify: the page is taken from the best of them so that it is not all of one kind.

A part may be missing. Then the rest does what it can, and the answer says so:

| missing | what is done instead |
|---|---|
| retrieval | the content model retrieves of all titles |
| content model | titles that the sequential recommender does not know are not recommended |
| both | the most watched titles are candidates |
| ranker | the order of retrieval; every `new_title_every`-th place goes to a new title |
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.cascade.catalogue import Catalogue
from models.cascade.diversity import genre_similarity, rerank
from models.content.recommender import ContentRecommender
from models.errors import ConfigurationError
from models.ranker.features import GENRES, KINDS, RECENT_TITLES, TITLE
from models.ranker.ranker import Ranker
from models.recommendation.recommender import Recommender

NO_RETRIEVAL = "no sequential recommender: titles were retrieved by what is written of them"
NO_CONTENT = "no content model: titles that nobody has watched yet are left out"
NO_MODEL = "neither a sequential recommender nor a content model: the most watched titles are candidates"
NO_RANKER = "no ranker: titles are in the order of retrieval"
NO_HISTORY = "no title of the history is known: what anybody would start with"


@dataclass(frozen=True)
class CascadeConfig:
    """How many titles each step looks at, and how much a varied page is worth."""

    retrieved: int = 500
    """Candidates of the sequential recommender."""
    new_titles: int = 100
    """Candidates that it does not know, of the content model."""
    new_title_every: int = 10
    """Without a ranker, which places go to these."""
    diversified: int = 50
    """Of how many of the best the page is taken."""
    diversity: float = 0.1
    """Weight of diversity against relevance, 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("retrieved", "new_title_every", "diversified"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1: received {getattr(self, name)}")
        if self.new_titles < 0:
            raise ConfigurationError(f"new_titles must be at least 0: received {self.new_titles}")
        if not 0 <= self.diversity <= 1:
            raise ConfigurationError(f"diversity must be in 0..1: received {self.diversity}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CascadeConfig":
        """The configuration with `values` in place of defaults.

        Raises:
            ConfigurationError: a key is unknown or a value outside its range.
        """
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigurationError(f"unknown settings of the cascade: {unknown}")
        return cls(**values)

    def as_dict(self) -> dict[str, int | float]:
        """The configuration as plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """One viewer at one moment: titles finished, oldest first, and features by column as the ranker knows them."""

    history: Sequence[str] = ()
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """Titles to show, first to last, with the score they were ranked by; what could not be done as it should."""

    titles: list[tuple[str, float]]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """Ids in the order of retrieval, what each stage says of them (NaN: nothing), and why they are not better."""

    ids: list[str]
    retrieval: list[float]
    content: list[float]
    reasons: tuple[str, ...]


class Cascade:
    """The three steps over one catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        config: CascadeConfig,
        retrieval: Recommender | None = None,
        content: ContentRecommender | None = None,
        ranker: Ranker | None = None,
    ) -> None:
        self.catalogue, self.config = catalogue, config
        self.retrieval, self.content, self.ranker = retrieval, content, ranker
        known = set(retrieval.vocabulary.content_ids) if retrieval is not None else set()
        self._names = sorted(catalogue.offers)
        self._place = {name: place for place, name in enumerate(self._names)}
        self._new = [place for place, name in enumerate(self._names) if name not in known]
        self._known = sorted(catalogue.offers.keys() & known)
        self._popular = catalogue.popular()

    def recommend(self, asked: Sequence[Asked], k: int) -> list[Page]:
        """A page of at most k titles for each, none of them of its history; fewer where fewer are on offer.

        Titles of a history that no part knows are skipped; where that leaves nothing the answer says so.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1: received {k}")
        return [self._page(one, candidates, k) for one, candidates in zip(asked, self._retrieve(asked), strict=True)]

    def _retrieve(self, asked: Sequence[Asked]) -> list[_Candidates]:
        if self.retrieval is None and self.content is None:
            return [self._most_watched(one) for one in asked]
        histories = [list(one.history) for one in asked]
        known: list[list[tuple[str, float]]] = [[] for _ in asked]
        if self.retrieval is not None and self._known:
            known = self.retrieval.recommend(histories, self.config.retrieved, allowed=self._known)
        shape = (len(asked), len(self._names))
        described, matches = np.full(shape, np.nan), np.full(shape, np.nan)
        if self.content is not None:
            titles = [self.catalogue.offers[name].title for name in self._names]
            matches, popularity = self.content.parts(histories, titles)
            described = matches + popularity
        return [self._joined(*each) for each in zip(histories, known, described, matches, strict=True)]

    def _joined(
        self,
        history: Sequence[str],
        known: Sequence[tuple[str, float]],
        described: npt.NDArray[np.floating],
        matches: npt.NDArray[np.floating],
    ) -> _Candidates:
        """Known titles in their order, with a new one at every so-manieth place.

        Args:
            history: content ids.
            known: what the sequential recommender retrieved.
            described: [titles on offer] how likely the content model takes each to be watched; NaN where there is none.
            matches: [titles on offer] how well it takes each to suit the viewer.
        """
        every, waiting = self.config.new_title_every, self._best_new(history, described)
        ids: list[str] = []
        for name, _ in known:
            if waiting and (len(ids) + 1) % every == 0:
                ids.append(waiting.pop(0))
            ids.append(name)
        ids += waiting
        by_retrieval = {name: float(np.log(max(probability, 1e-12))) for name, probability in known}
        missing = [NO_RETRIEVAL] if self.retrieval is None else []
        if self.content is None and self._new:
            missing.append(NO_CONTENT)
        return _Candidates(
            ids,
            [by_retrieval.get(name, np.nan) for name in ids],
            [float(matches[self._place[name]]) for name in ids],
            (*missing, *([] if self._knows_one(history) else [NO_HISTORY])),
        )

    def _best_new(self, history: Sequence[str], described: npt.NDArray[np.floating]) -> list[str]:
        """New titles, likeliest first by what is written of them; all titles are new if nothing else retrieves."""
        if self.content is None:
            return []
        wanted = self.config.new_titles if self.retrieval is not None else self.config.retrieved
        seen, places = set(history), np.array(self._new, np.int64)
        order = places[np.argsort(-described[places], kind="stable")]
        return [name for name in (self._names[place] for place in order) if name not in seen][:wanted]

    def _knows_one(self, history: Sequence[str]) -> bool:
        by_retrieval = self.retrieval is not None and bool(self.retrieval.vocabulary.columns(list(history)).size)
        return by_retrieval or (self.content is not None and any(name in self.content.titles for name in history))

    def _most_watched(self, asked: Asked) -> _Candidates:
        seen = set(asked.history)
        ids = [name for name in self._popular if name not in seen][: self.config.retrieved]
        return _Candidates(ids, [np.nan] * len(ids), [np.nan] * len(ids), (NO_MODEL,))

    def _page(self, asked: Asked, candidates: _Candidates, k: int) -> Page:
        ids = candidates.ids
        if not ids:
            return Page([], candidates.reasons)
        if self.ranker is None:
            scores, reasons = -np.arange(len(ids), dtype=np.float64), (*candidates.reasons, NO_RANKER)
        else:
            scores, reasons = self.ranker.score(self._rows(asked, candidates)), candidates.reasons
        best = np.argsort(-scores, kind="stable")[: max(k, self.config.diversified)]
        genres = [self.catalogue.offers[ids[at]].title.genres for at in best]
        shown = best[rerank(scores[best], genre_similarity(genres), k, self.config.diversity)]
        return Page([(ids[at], float(scores[at])) for at in shown], reasons)

    def _rows(self, asked: Asked, candidates: _Candidates) -> pa.Table:
        """One row a candidate, in the ranker's columns; what nobody said is null."""
        offers = [self.catalogue.offers[name] for name in candidates.ids]
        count = len(offers)
        given = {**asked.features, RECENT_TITLES: list(asked.history)}
        columns: dict[str, pa.Array] = {}
        for name, kind in KINDS.items():
            if name in given:
                columns[name] = pa.array([given[name]] * count, kind)
            else:
                columns[name] = pa.array([offer.numbers.get(name) for offer in offers], kind)
        stages = {"retrieval_score": candidates.retrieval, "content_match": candidates.content}
        columns |= {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in stages.items()}
        columns[TITLE] = pa.array(candidates.ids, KINDS[TITLE])
        columns[GENRES] = pa.array([list(offer.title.genres) for offer in offers], KINDS[GENRES])
        return pa.table(columns)
