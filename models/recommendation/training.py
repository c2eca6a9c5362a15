"""Training of the recommender, one epoch at a time: pure torch, in one process of possibly several.

Whoever drives it (a Ray Train worker, a script, a test) calls `epoch` until `done`, and stores `state` in between.
The random numbers of an epoch are a function of (seed, epoch, rank) alone, so a training resumed from the state
of epoch n takes exactly the steps that the uninterrupted one would have taken.

Every worker holds all rows (4 bytes a title: 250 million titles a GB) and takes its share of each batch, so that
the batches, and what one of them teaches, do not depend on how many workers there are.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from models.epochs import EpochTraining
from models.errors import EmptyTrainingSetError
from models.ranking import hit_at, ndcg_at
from models.recommendation.averaging import AveragedWeights
from models.recommendation.batches import Batch, Sequences, Vocabulary, encode, training_batches, windows
from models.recommendation.evaluation import rank_rows
from models.recommendation.model import FULL_SOFTMAX_TITLES, RecommenderConfig, SASRec
from models.recommendation.popularity import Popularity
from models.recommendation.recommender import Recommender
from models.task import Place
from models.training_set import Manifest

WATCHED = "validation_ndcg_at_10"
"""The metric that chooses the epoch; higher is better."""
BASELINE = "validation_popularity_ndcg_at_10"
_BETAS = (0.9, 0.98)  # of Adam: a shorter memory of squared gradients than usual, as transformers are trained with
_LARGEST_GRADIENT = 1.0  # norm that gradients are clipped to: one odd batch cannot throw training off


class RecommenderTraining(EpochTraining):
    """A model, its optimizer, the rows it learns from and how far it has come."""

    def __init__(
        self, config: RecommenderConfig, manifest: Manifest, train: pa.Table, validation: pa.Table, place: Place
    ) -> None:
        """Encodes the rows and starts a fresh model.

        Raises:
            TrainingSetError: no label to learn from or to choose by, a missing column, a label outside the catalogue.
        """
        super().__init__(WATCHED, config, manifest)
        self.config, self.place = config, place
        self.device = torch.device(place.device)
        self.vocabulary = Vocabulary(manifest.catalogue)
        self._rows = _labelled(encode(train, self.vocabulary), "train")
        self._judged = _labelled(encode(validation, self.vocabulary), "validation")
        self._judged_rows = _evenly(len(self._judged), config.judged_rows)
        popularity = Popularity(self.vocabulary, manifest.popularity)
        self._popularity_metrics = self._judge(popularity, "validation_popularity")
        self._prior = _prior(self.vocabulary, manifest)
        self._cumulated = np.cumsum(self._prior)
        self._cumulated[-1] = 1.0  # rounding must not leave a gap above the last title

        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.model = SASRec(len(self.vocabulary), config)
        self.model.bias.data = torch.log(torch.from_numpy(self._prior)).float()
        self.model.to(self.device)
        self._replica = DistributedDataParallel(self.model) if place.workers > 1 else self.model
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), config.lr, betas=_BETAS, weight_decay=config.weight_decay
        )
        self._averaged = AveragedWeights(self.model, config.averaging)
        self._best_weights = copy.deepcopy(self.model.state_dict())

    @property
    def facts(self) -> dict[str, int]:
        """What was read: sequences, labels, and titles of histories that the catalogue lacks."""
        return {
            "train_rows": len(self._rows),
            "train_labels": self._rows.labels,
            "validation_rows": len(self._judged),
            "unknown_history_titles": self._rows.unknown_titles + self._judged.unknown_titles,
        }

    def _validate(self) -> dict[str, float]:
        averaged = Recommender(self._averaged.model, self.vocabulary, self.device)
        return {**self._judge(averaged, "validation"), **self._popularity_metrics}

    def _keep(self) -> None:
        self._best_weights = copy.deepcopy(self._averaged.model.state_dict())

    def best(self) -> Recommender:
        """The model of the epoch that ranked the validation rows best."""
        model = SASRec(len(self.vocabulary), self.config)
        model.load_state_dict(self._best_weights)
        return Recommender(model, self.vocabulary)

    def _learnt(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "best_weights": self._best_weights,
            "optimizer": self._optimizer.state_dict(),
            "averaged": self._averaged.state(),
        }

    def _take_up(self, learnt: dict[str, Any]) -> None:
        self.model.load_state_dict(learnt["model"])
        self._optimizer.load_state_dict(learnt["optimizer"])
        self._averaged.resume(learnt["averaged"])
        self._best_weights = {name: value.to(self.device) for name, value in learnt["best_weights"].items()}

    def _learn(self, epoch: int) -> float:
        """One pass over the rows; the mean loss per label over all workers."""
        shared = np.random.default_rng([self.config.seed, epoch])
        own = np.random.SeedSequence([self.config.seed, epoch, self.place.rank]).generate_state(1)[0]
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.lr_of(epoch)
        total = torch.zeros((), device=self.device)
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(own))
            cut = windows(self._rows, self.config.max_length, shared)
            for batch in training_batches(
                self._rows.titles, cut, self.config.batch_size, self.model.start_token, shared
            ):
                total += self._step(batch, shared)
        if self.place.workers > 1:
            distributed.all_reduce(total)
        return float(total) / self._rows.labels

    def _step(self, batch: Batch, shared: np.random.Generator) -> torch.Tensor:
        """Learns this worker's share of a batch; the share's summed loss."""
        mine = batch.share(self.place.rank, self.place.workers).to(self.device)
        negatives, log_expected = self._draw(shared)
        loss: torch.Tensor = self._replica(mine.inputs, mine.targets, mine.learnt, negatives, log_expected)
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over workers: the factor makes that the mean over the labels of the whole batch.
        (loss * self.place.workers / int(batch.learnt.sum())).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._averaged.follow(self.model)
        return loss.detach()

    def _draw(self, shared: np.random.Generator) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Titles to compare a batch's labels with, and the log of how often each is expected; None: all titles."""
        if len(self.vocabulary) <= FULL_SOFTMAX_TITLES:
            return None, None
        drawn = np.searchsorted(self._cumulated, shared.random(self.config.negatives))
        expected = np.log(self.config.negatives * self._prior[drawn])
        return torch.from_numpy(drawn).to(self.device), torch.from_numpy(expected).float().to(self.device)

    def _judge(self, scorer: Recommender | Popularity, name: str) -> dict[str, float]:
        """NDCG@10 and HR@10 of `scorer` on the validation rows; each worker ranks its share."""
        rows = self._judged_rows[self.place.rank :: self.place.workers]
        ranks = rank_rows(scorer, self._judged, len(self.vocabulary), rows).ranks
        sums = torch.tensor([ndcg_at(ranks, 10).sum(), hit_at(ranks, 10).sum()], device=self.device)
        if self.place.workers > 1:
            distributed.all_reduce(sums)
        ndcg, hits = (sums / len(self._judged_rows)).tolist()
        return {f"{name}_ndcg_at_10": ndcg, f"{name}_hr_at_10": hits}


def _labelled(sequences: Sequences, split: str) -> Sequences:
    if sequences.labels == 0:
        raise EmptyTrainingSetError(split)
    return sequences


def _evenly(rows: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most `wanted` of `rows` row numbers, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, wanted)).round().astype(np.int64))


def _prior(vocabulary: Vocabulary, manifest: Manifest) -> npt.NDArray[np.float64]:
    """Each title's share of the finished playbacks, one added to every title; sums to 1."""
    counts = 1.0 + np.array([manifest.popularity.get(title, 0) for title in vocabulary.content_ids])
    return counts / counts.sum()  # type: ignore[no-any-return]
