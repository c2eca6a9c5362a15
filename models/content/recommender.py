"""The content model as it is saved, loaded and asked: a folder of four files, readable without any code of ours.

config.json       {"format": 1, "architecture": "two_towers", "config": {...}, "learnt": content ids in own-part order,
                   "viewers_by_genre": {...}}
vocabulary.json   tokens, in the order of the model's rows
titles.json       the titles it can tell of: what the catalogue said of each
weights.pt        the state dict, loaded with weights_only=True
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from models.content.model import ContentConfig, TwoTowers
from models.content.popularity import GenrePopularity
from models.content.titles import Title, Vocabulary
from models.ranking import Scores, top_k
from models.saved import describe, described, whole

FORMAT = 1
ARCHITECTURE = "two_towers"
CONFIG_FILE, VOCABULARY_FILE, TITLES_FILE, WEIGHTS_FILE = "config.json", "vocabulary.json", "titles.json", "weights.pt"


class ContentRecommender:
    """Answers which titles a viewer is likely to watch, also of those that nobody has watched yet."""

    def __init__(
        self,
        model: TwoTowers,
        vocabulary: Vocabulary,
        learnt: Sequence[str],
        titles: Iterable[Title],
        popularity: GenrePopularity,
    ) -> None:
        """`learnt`: ids of the titles that have a part of their own, in its order; `titles`: all that are described;
        `popularity`: the baseline, from the same watching.
        """
        self.model = model.cpu().eval()
        self.vocabulary = vocabulary
        self.learnt = tuple(learnt)
        self.titles: Mapping[str, Title] = {title.content_id: title for title in titles}
        self.popularity = popularity
        self._own = {content_id: number for number, content_id in enumerate(self.learnt)}
        self.unknown_titles = 0
        """Titles of histories asked about so far that the model does not know; they were skipped."""

    def score(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> Scores:
        """[len(histories), len(candidates)] log-odds that a title is watched, up to a constant per row.

        Titles of a history that nothing is known of are skipped and counted in `unknown_titles`. Who has no history
        gets the candidates by the popularity of titles like them.
        """
        matches, popularity = self.parts(histories, candidates)
        return matches + popularity

    def parts(self, histories: Sequence[Sequence[str]], candidates: Sequence[Title]) -> tuple[Scores, Scores]:
        """What `score` is the sum of: [histories, candidates] how well each suits the viewer, [candidates] how popular
        titles like it are, whoever asks.
        """
        if not candidates:
            return np.empty((len(histories), 0), np.float32), np.empty(0, np.float32)
        known = [[name for name in history if name in self.titles] for history in histories]
        self.unknown_titles += sum(map(len, histories)) - sum(map(len, known))
        with torch.inference_mode():
            embeddings, popularity = self._tower(candidates)
            matches: Scores = (self._viewers(known) @ embeddings.T).numpy()
            return matches, popularity.numpy()

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int, allowed: Collection[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        """The k likeliest titles of each history that it lacks, of `allowed` or else of all described ones, best first.

        Returns:
            (content_id, probability among the titles that were allowed), one list per history.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1: received {k}")
        names = sorted(self.titles if allowed is None else set(allowed) & self.titles.keys())
        if not names:
            return [[] for _ in histories]
        scores = self.score(histories, [self.titles[name] for name in names])
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        seen = np.array([np.isin(names, list(history)) for history in histories]).reshape(len(histories), len(names))
        return [
            [(names[at], float(row[at])) for at in best if at >= 0]
            for row, best in zip(shares, top_k(scores, seen, k), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Writes the model's four files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / WEIGHTS_FILE)
        (folder / VOCABULARY_FILE).write_text(json.dumps(self.vocabulary.tokens))
        (folder / TITLES_FILE).write_text(json.dumps([title.as_dict() for title in self.titles.values()]))
        facts = {"learnt": self.learnt, "viewers_by_genre": self.popularity.viewers}
        describe(folder / CONFIG_FILE, FORMAT, ARCHITECTURE, config=self.model.config.as_dict(), **facts)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The model that `save` wrote into `folder`.

        Raises:
            ModelFolderError: a file is missing or broken, or the format is one this version does not read.
        """
        folder = Path(folder)
        with whole(folder, "content model"):
            description = described(folder / CONFIG_FILE, FORMAT, ARCHITECTURE)
            tokens, titles = (json.loads((folder / name).read_text()) for name in (VOCABULARY_FILE, TITLES_FILE))
            learnt, config = description["learnt"], ContentConfig.from_dict(description["config"])
            model = TwoTowers(len(tokens), len(learnt), config)
            model.load_state_dict(torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True))
            popularity = GenrePopularity(description["viewers_by_genre"])
            return cls(model, Vocabulary(tokens), learnt, map(Title.from_dict, titles), popularity)

    def _tower(self, titles: Sequence[Title]) -> tuple[torch.Tensor, torch.Tensor]:
        bags, starts = self.vocabulary.bags(titles)
        embeddings, popularity = self.model.titles(torch.from_numpy(bags), torch.from_numpy(starts))
        return embeddings, popularity

    def _viewers(self, histories: Sequence[Sequence[str]]) -> torch.Tensor:
        watched = [name for history in histories for name in history]
        starts = np.cumsum([0, *map(len, histories)])[:-1].astype(np.int64)
        if not watched:
            return self.model.viewers(torch.zeros(0, self.model.config.dim), torch.from_numpy(starts))
        embeddings, _ = self._tower([self.titles[name] for name in watched])
        own = torch.tensor([self._own.get(name, -1) for name in watched])
        parts = self.model.own(own.clamp(min=0)) * (own >= 0)[:, None]
        return self.model.viewers(embeddings + parts, torch.from_numpy(starts))
