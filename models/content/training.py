"""Training of the content model, one epoch at a time: pure torch, in one process of possibly several.

A share of the titles is held out: nobody's watching of them is learnt. An epoch is judged by how well these, and titles
that are new in the validation period, are ranked by their metadata alone for who watched them then. Another share is
never looked at here: `models.content.judging` judges by it. The random numbers of an epoch are a function of
(seed, epoch) alone.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from models.content.evaluation import CUT, per_viewer
from models.content.model import ContentConfig, TwoTowers
from models.content.popularity import GenrePopularity
from models.content.recommender import ContentRecommender
from models.content.titles import Vocabulary, titles_of
from models.content.watches import TEST_SHARE, Cold, Watches, lots
from models.epochs import EpochTraining
from models.errors import EmptyTrainingSetError
from models.task import Place
from models.training_set import Manifest

WATCHED = f"validation_ndcg_at_{CUT}"
"""The metric that chooses the epoch; higher is better."""
BASELINE = f"validation_popularity_ndcg_at_{CUT}"
_LARGEST_GRADIENT = 1.0


class ContentTraining(EpochTraining):
    """A model, its optimizer, who watched what and how far it has come."""

    def __init__(
        self, config: ContentConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Reads the rows and starts a fresh model.

        Raises:
            TrainingSetError: no finished title to learn from, none of the new ones to choose by, or a missing column.
        """
        super().__init__(WATCHED, config, manifest)
        self.config, self.place = config, place
        self.device = torch.device(place.device)
        self.titles = {title.content_id: title for rows in (train, validation) for title in titles_of(rows)}
        watched = Watches.of(train)
        self.learnt = watched.of_titles(watched.titles[self._is_learnt(watched.titles)])
        if len(self.learnt) == 0:
            raise EmptyTrainingSetError("train")
        later = np.array(sorted(set(validation["content_id"].to_pylist())), dtype=str)
        new = later[(lots(later.tolist()) >= TEST_SHARE) & ~np.isin(later, self.learnt.titles)]
        self._cold = Cold.of(validation, new)
        if len(self._cold) == 0:
            raise EmptyTrainingSetError("validation")
        self._popularity = GenrePopularity.of(self.titles, self.learnt)
        self._popularity_metrics = self._judge(self._popularity, "validation_popularity")

        known = [self.titles[name] for name in self.learnt.titles.tolist()]
        self.vocabulary = Vocabulary.of(known)
        bags, starts = self.vocabulary.bags(known)
        self._bags, self._starts = torch.from_numpy(bags).to(self.device), torch.from_numpy(starts).to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = TwoTowers(len(self.vocabulary), len(known), config)
        self.model.to(self.device)
        self._replica = DistributedDataParallel(self.model) if place.workers > 1 else self.model
        self._optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, weight_decay=config.weight_decay)
        self._of_viewer = np.split(self.learnt.title, np.flatnonzero(np.diff(self.learnt.viewer)) + 1)
        self._best_weights = copy.deepcopy(self.model.state_dict())

    @property
    def facts(self) -> dict[str, int]:
        """What was read: watches and titles that are learnt from, viewers and new titles that an epoch is judged by."""
        return {
            "train_watches": len(self.learnt),
            "train_titles": len(self.learnt.titles),
            "validation_viewers": len(self._cold),
            "validation_titles": len(self._cold.candidates),
        }

    def _validate(self) -> dict[str, float]:
        ranked = self._judge(self._recommender(self.model.state_dict()), "validation")
        return {**ranked, **self._popularity_metrics}

    def _keep(self) -> None:
        self._best_weights = copy.deepcopy(self.model.state_dict())

    def best(self) -> ContentRecommender:
        """The model of the epoch that ranked the new titles best."""
        return self._recommender(self._best_weights)

    def _learnt(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "best_weights": self._best_weights,
            "optimizer": self._optimizer.state_dict(),
        }

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self.model.load_state_dict(learnt["model"])
        self._optimizer.load_state_dict(learnt["optimizer"])
        self._best_weights = {name: value.to(self.device) for name, value in learnt["best_weights"].items()}

    def _is_learnt(self, titles: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
        """[titles] which are learnt from: neither for judging a model nor for choosing its epoch."""
        drawn = lots(titles.tolist())
        return (drawn >= TEST_SHARE) & (drawn < 1 - self.config.cold_share)

    def _learn(self, epoch: int) -> float:
        """One pass over the viewers; the mean loss of a viewer over all workers."""
        chance = np.random.default_rng([self.config.seed, epoch])
        total = torch.zeros((), device=self.device)
        order = chance.permutation(len(self._of_viewer))
        self.model.train()
        for start in range(0, len(order), self.config.batch_size):
            batch = [self._of_viewer[viewer] for viewer in order[start : start + self.config.batch_size]]
            cuts = [self._cut(titles, chance) for titles in batch]
            mine = cuts[self.place.rank :: self.place.workers]
            total += self._step(mine, len(batch))
        if self.place.workers > 1:
            distributed.all_reduce(total)
        return float(total) / len(order)

    def _cut(
        self, titles: npt.NDArray[np.int64], chance: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """(titles shown, which of them with their own part, titles to guess: at least one)."""
        order = chance.permutation(titles)
        hidden = max(1, round(self.config.hidden_share * len(order)))
        shown = order[hidden:]
        return shown, chance.random(len(shown)) >= self.config.dropout, order[:hidden]

    def _step(self, cuts: list[Any], viewers: int) -> torch.Tensor:
        """Learns this worker's share of a batch of `viewers`; the share's summed loss."""
        shown = np.concatenate([np.empty(0, np.int64), *(one for one, _, _ in cuts)])
        keeps = np.concatenate([np.empty(0, bool), *(one for _, one, _ in cuts)])
        starts = np.cumsum([0, *(len(one) for one, _, _ in cuts)])[:-1].astype(np.int64)
        hidden = np.zeros((len(cuts), len(self.learnt.titles)), np.float32)
        for row, (_, _, guessed) in enumerate(cuts):
            hidden[row, guessed] = 1 / len(guessed)
        given = (torch.from_numpy(array).to(self.device) for array in (shown, starts, keeps[:, None], hidden))
        loss: torch.Tensor = self._replica(self._bags, self._starts, *given)
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over workers: the factor makes that the mean over the viewers of the whole batch.
        (loss * self.place.workers / viewers).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        return loss.detach()

    def _recommender(self, weights: dict[str, torch.Tensor]) -> ContentRecommender:
        model = TwoTowers(len(self.vocabulary), len(self.learnt.titles), self.config)
        model.load_state_dict(weights)
        described = [self.titles[name] for name in sorted(self.titles)]
        return ContentRecommender(model, self.vocabulary, self.learnt.titles.tolist(), described, self._popularity)

    def _judge(self, scorer: Any, name: str) -> dict[str, float]:
        """Mean metrics of `scorer` over the viewers of the new titles."""
        return {f"{name}_{metric}": float(np.mean(values))
                for metric, values in per_viewer(scorer, self._cold, self.titles).items()}  # fmt: skip
