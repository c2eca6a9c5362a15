"""What the protocols of the next title share: a training with its clock, and every ranking beside another."""

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from models.intervals import Interval, bootstrap_means
from models.ranking import Ranks, Scores, coverage, hit_at, ndcg_at
from models.recommendation.batches import Sequences, Titles, Vocabulary
from models.recommendation.evaluation import Scorer, rank_rows
from models.recommendation.popularity import Popularity
from models.recommendation.training import WATCHED, RecommenderTraining
from models.task import Place


def fastest_place() -> Place:
    """The GPU, where there is one."""
    return Place(device="cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Trained:
    """A training that has ended, and what it took."""

    training: RecommenderTraining
    facts: dict[str, Any]


def train(training: RecommenderTraining, limit_minutes: float) -> Trained:
    """Takes epochs until the training is done or another one would go over the limit.

    The clock runs over learning and over the judging of every epoch; `curve` is [seconds, validation NDCG@10] by epoch.
    """
    begun, cpu_begun = time.monotonic(), _cpu_seconds()
    curve: list[tuple[float, float]] = []
    seconds = longest = 0.0
    while not training.done and seconds + longest < limit_minutes * 60:
        metrics = training.epoch()
        longest = max(longest, time.monotonic() - begun - seconds)
        seconds = time.monotonic() - begun
        curve.append((round(seconds, 1), round(metrics[WATCHED], 4)))
        print(f"epoch {len(curve)}  {seconds:6.0f} s  loss {metrics['train_loss']:.3f}  NDCG@10 {metrics[WATCHED]:.4f}")
    facts = {
        "device": training.place.device,
        "threads": torch.get_num_threads(),
        "train_minutes": round(seconds / 60, 2),
        "train_cpu_minutes": round((_cpu_seconds() - cpu_begun) / 60, 2),
        "epochs": len(curve),
        "best_epoch": training.best_epoch,
        "validation_ndcg_at_10": curve[training.best_epoch - 1][1],
        "curve": curve,
    }
    return Trained(training, facts)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class BackedOff:
    """A scorer that leaves what it knows nothing of (score 0) to popularity: neighbours of an empty history, say."""

    def __init__(self, scorer: Scorer, popularity: Popularity) -> None:
        self._scorer, self._popularity = scorer, popularity

    def score(self, histories: Sequence[Titles]) -> Scores:
        counts = self._popularity.score(histories)
        return self._scorer.score(histories) + np.float32(1e-6) * counts / max(1.0, float(counts.max(initial=0)))


def ranks_of(scorers: Mapping[str, Scorer], test: Sequences, titles: int) -> tuple[dict[str, Ranks], dict[str, float]]:
    """Every scorer's ranks of all test rows, and the share of the catalogue that its first ten places show."""
    rows = np.arange(len(test))
    ranked = {name: rank_rows(scorer, test, titles, rows) for name, scorer in scorers.items()}
    return (
        {name: each.ranks for name, each in ranked.items()},
        {name: coverage(each.best, titles) for name, each in ranked.items()},
    )


def metrics(ranks: Mapping[str, Ranks], viewers: npt.NDArray[np.generic]) -> dict[str, Any]:
    """NDCG@10 and HR@10 of every ranking with 95 % intervals drawn by viewer, and what the model gains on the others.

    The model is the first ranking and its figures have no prefix.
    """
    model, *others = ranks
    columns = {}
    for name, ranked in ranks.items():
        prefix = "" if name == model else f"{name}_"
        columns[f"{prefix}ndcg_at_10"] = ndcg_at(ranked, 10)
        columns[f"{prefix}hr_at_10"] = hit_at(ranked, 10)
    for name in others:
        columns[f"ndcg_gain_over_{name}"] = columns["ndcg_at_10"] - columns[f"{name}_ndcg_at_10"]
    intervals = bootstrap_means(np.stack(list(columns.values()), axis=1), viewers, seed=1)
    named = dict(zip(columns, intervals, strict=True))
    means = {name: round(interval.mean, 4) for name, interval in named.items()}
    return {**means, "intervals": {name: _ends(interval) for name, interval in named.items()}}


def _ends(interval: Interval) -> list[float]:
    return [round(interval.low, 4), round(interval.high, 4)]


class Random:
    """Scores that know nothing: the floor."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 1) -> None:
        self._titles = len(vocabulary)
        self._generator = np.random.default_rng(seed)

    def score(self, histories: Sequence[Titles]) -> Scores:
        return self._generator.random((len(histories), self._titles), np.float32)


def rows(viewers: list[int], histories: list[list[str]], labels: list[list[str]], first_row: int) -> pa.Table:
    """Rows in the columns that the recommender reads."""
    strings = pa.list_(pa.string())
    return pa.table(
        {
            "row_id": pa.array(range(first_row, first_row + len(viewers)), pa.int64()),
            "profile_id": pa.array([str(viewer) for viewer in viewers]),
            "history": pa.array(histories, strings),
            "label": pa.array(labels, strings),
        }
    )
