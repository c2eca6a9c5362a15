"""The recommender as it is saved, loaded and asked: a folder of three files, readable without any code of ours.

config.json       {"format": 2, "architecture": "sasrec", "config": {...}}
vocabulary.json   content ids, in the order of the model's columns
weights.pt        the state dict, loaded with weights_only=True
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from models.ranking import Scores, top_k
from models.recommendation.batches import Titles, Vocabulary, pad_histories
from models.recommendation.model import RecommenderConfig, SASRec
from models.saved import describe, described, whole

FORMAT = 2
ARCHITECTURE = "sasrec"
CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE = "config.json", "vocabulary.json", "weights.pt"
_ROWS_AT_ONCE = 256  # histories scored in one pass: bounds memory to 256 x length x dim


class Recommender:
    """Answers which titles a viewer is likely to finish next."""

    def __init__(self, model: SASRec, vocabulary: Vocabulary, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.vocabulary = vocabulary
        self.unknown_titles = 0
        """Titles of histories asked about so far that the model does not know; they were skipped."""

    def save(self, folder: Path) -> None:
        """Writes the model's three files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: value.cpu() for name, value in self.model.state_dict().items()}, folder / WEIGHTS_FILE)
        (folder / VOCABULARY_FILE).write_text(json.dumps(self.vocabulary.content_ids))
        describe(folder / CONFIG_FILE, FORMAT, ARCHITECTURE, config=self.model.config.as_dict())

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> Self:
        """The recommender that `save` wrote into `folder`.

        Raises:
            ModelFolderError: a file is missing or broken, or the format is one this version does not read.
        """
        folder = Path(folder)
        with whole(folder, "recommender"):
            description = described(folder / CONFIG_FILE, FORMAT, ARCHITECTURE)
            vocabulary = Vocabulary(json.loads((folder / VOCABULARY_FILE).read_text()))
            model = SASRec(len(vocabulary), RecommenderConfig.from_dict(description["config"]))
            weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
            model.load_state_dict(weights)
            return cls(model, vocabulary, device)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude_seen: bool = True,
        allowed: Collection[str] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """The k likeliest next titles of each history, best first.

        Unknown titles of a history are skipped and counted in `unknown_titles`. A history that is empty, or empty
        once they are skipped, is answered from the start token: what viewers finish first.

        Args:
            histories: content ids, oldest first.
            k: titles an answer has at most; it has fewer where fewer are left.
            exclude_seen: leave out the titles of the history.
            allowed: content ids an answer may name; None allows all.

        Returns:
            (content_id, probability that it is the next title finished), one list per history.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1: received {k}")
        answers: list[list[tuple[str, float]]] = []
        barred = self._barred(allowed)
        for start in range(0, len(histories), _ROWS_AT_ONCE):
            known = [self.vocabulary.columns(history) for history in histories[start : start + _ROWS_AT_ONCE]]
            given = sum(len(history) for history in histories[start : start + _ROWS_AT_ONCE])
            self.unknown_titles += given - sum(len(columns) for columns in known)
            excluded = np.tile(barred, (len(known), 1))
            if exclude_seen:
                for row, columns in enumerate(known):
                    excluded[row, columns] = True
            answers += self._answer(self.score(known), excluded, k)
        return answers

    def score(self, histories: Sequence[Titles]) -> Scores:
        """[len(histories), titles] probabilities that a title is the next one finished; rows sum to 1."""
        scores = np.empty((len(histories), len(self.vocabulary)), np.float32)
        for start in range(0, len(histories), _ROWS_AT_ONCE):
            chunk = histories[start : start + _ROWS_AT_ONCE]
            scores[start : start + len(chunk)] = self._score(chunk)
        return scores

    @torch.inference_mode()
    def _score(self, histories: Sequence[Titles]) -> npt.NDArray[np.float32]:
        inputs, last = pad_histories(histories, self.model.config.max_length, self.model.start_token)
        hidden = self.model.encode(inputs.to(self.device))
        hidden = hidden[torch.arange(len(histories), device=self.device), last.to(self.device)]
        return self.model.scores(hidden).softmax(dim=-1).cpu().numpy()

    def _barred(self, allowed: Collection[str] | None) -> npt.NDArray[np.bool_]:
        barred = np.zeros(len(self.vocabulary), bool)
        if allowed is not None:
            barred[:] = True
            barred[self.vocabulary.columns(list(allowed))] = False
        return barred

    def _answer(self, scores: Scores, excluded: npt.NDArray[np.bool_], k: int) -> list[list[tuple[str, float]]]:
        ids = self.vocabulary.content_ids
        return [
            [(ids[column], float(row[column])) for column in best if column >= 0]
            for row, best in zip(scores, top_k(scores, excluded, k), strict=True)
        ]
