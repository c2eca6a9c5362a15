"""The next title of MovieLens 1M, leave the last out: the sequential recommender against published figures.

Data      `ml-1m.txt`: viewer and title on every line, each viewer's titles in the order watched (no times, no ratings)
Protocol  a viewer's last title is the test, the last but one the validation, all before is learnt; every title of the
          file is ranked for every viewer, less those already seen; NDCG@10 and HR@10 are means over viewers
Chosen    configuration and epoch by validation alone; the test titles are ranked once, at the end

Published on this file, NDCG@10 / HR@10: SASRec .1259 / .2392, gSASRec .1726 / .3003 (Petrov & Macdonald, RecSys 2023);
on one close to it: SASRec with sampled softmax .1603 / .2853, GRU4Rec .1648 / .2811, HSTU .1720 / .3097, HSTU-large
.1893 / .3294 (Zhai et al., ICML 2024). What was tried on the way: `models/recommendation/README.md`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.purposes import Purpose
from models.recommendation.batches import Titles, Vocabulary, encode
from models.recommendation.model import RecommenderConfig
from models.recommendation.neighbours import ItemNeighbours
from models.recommendation.popularity import Popularity
from models.recommendation.training import RecommenderTraining
from models.training_set import Manifest
from tests.benchmarks.judged import _next_title as next_title

FILE = "ml-1m.txt"
CONFIG = RecommenderConfig(lr=4e-3, blocks=4, epochs=32, cooldown=12, patience=32, judged_rows=10**9)
LIMIT_MINUTES = 55  # on 2 cores the figures have to be reached within the hour


def judge(folder: Path) -> dict[str, Any]:
    watched = read(folder / FILE)
    manifest, splits = leave_last_out(watched)
    trained = next_title.train(
        RecommenderTraining(CONFIG, manifest, splits["train"], splits["validation"], next_title.fastest_place()),
        LIMIT_MINUTES,
    )
    vocabulary = Vocabulary(manifest.catalogue)
    popularity = Popularity(vocabulary, manifest.popularity)
    learnt = encode(splits["train"], vocabulary)
    scorers = {
        "model": trained.training.best(),
        "popularity": popularity,
        "item_knn": next_title.BackedOff(ItemNeighbours(vocabulary, learnt, np.arange(len(learnt))), popularity),
        "random": next_title.Random(vocabulary),
    }
    test = encode(splits["test"], vocabulary)
    ranks, shown = next_title.ranks_of(scorers, test, len(vocabulary))
    return {
        **next_title.metrics(ranks, test.row_ids),  # a viewer has one row
        "coverage_at_10": round(shown["model"], 4),
        "viewers": len(test),
        "titles": len(vocabulary),
        **trained.facts,
        "config": CONFIG.as_dict(),
    }


def read(path: Path) -> dict[int, Titles]:
    """Every viewer's titles, in the order watched.

    Raises:
        ValueError: the file does not hold two whole numbers a line.
    """
    table = np.loadtxt(path, dtype=np.int64, ndmin=2)
    if table.shape[1] != 2:
        raise ValueError(f"{path} must hold viewer and title on every line: received {table.shape[1]} columns")
    table = table[np.argsort(table[:, 0], kind="stable")]
    viewers, starts = np.unique(table[:, 0], return_index=True)
    return dict(zip(viewers.tolist(), np.split(table[:, 1], starts[1:]), strict=True))


def leave_last_out(watched: dict[int, Titles]) -> tuple[Manifest, dict[str, pa.Table]]:
    """The training set: viewers with fewer than three titles are learnt from and not asked about."""
    names = {viewer: [str(title) for title in titles] for viewer, titles in watched.items()}
    asked = [viewer for viewer, titles in names.items() if len(titles) >= 3]
    learnt = [titles[:-2] if len(titles) >= 3 else titles for titles in names.values()]
    counts: dict[str, int] = {}
    for title in (title for titles in learnt for title in titles):
        counts[title] = counts.get(title, 0) + 1
    held_out = {"validation": -2, "test": -1}
    splits = {"train": next_title.rows(list(names), [[] for _ in learnt], learnt, 0)}
    for number, (split, at) in enumerate(held_out.items()):
        first_row = len(names) + number * len(asked)
        histories = [names[viewer][:at] for viewer in asked]
        splits[split] = next_title.rows(asked, histories, [[names[viewer][at]] for viewer in asked], first_row)
    manifest = Manifest(
        name="ml-1m",
        purpose=Purpose.PERSONALIZATION.value,
        snapshots={},
        seed=0,
        code_version="benchmark",
        features=[],
        rows={split: len(rows) for split, rows in splits.items()},
        excluded={},
        split_ms={"train_end": 0, "validation_end": 0},
        catalogue=tuple(str(title) for title in np.unique(np.concatenate(list(watched.values())))),
        popularity=counts,
        schema_hash="",
        digest="ml-1m",
    )
    return manifest, splits
