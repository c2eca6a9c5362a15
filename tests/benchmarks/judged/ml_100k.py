"""The next title of MovieLens 100K, split by global time: the sequential recommender against simple baselines.

Data      `u.data`: viewer, title, rating, seconds since the epoch on every line, tab separated
Protocol  the first 80 % of all ratings are learnt, the next 10 % choose the epoch, the last 10 % are the test; every
          test rating is one row, ranked against the whole catalogue less what its viewer had rated before it
Beside it popularity, item-kNN (popularity where it knows nothing), and chance; intervals are drawn by viewer

Most viewers of the test period were never seen before it: their history starts empty and grows while they are tested.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.recommendation.batches import Vocabulary, encode
from models.recommendation.model import RecommenderConfig
from models.recommendation.neighbours import ItemNeighbours
from models.recommendation.popularity import Popularity
from models.recommendation.training import RecommenderTraining
from models.training_set import read_manifest
from tests.benchmarks.judged import _next_title as next_title
from tests.models.recommendation.movielens import write_training_set

FILE = "u.data"
CONFIG = RecommenderConfig(judged_rows=10**9)
LIMIT_MINUTES = 30


def judge(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        write_training_set(Path(scratch), folder / FILE)
        manifest = read_manifest(Path(scratch))
        splits = {split: _read(Path(scratch), split) for split in ("train", "validation", "test")}
    trained = next_title.train(
        RecommenderTraining(CONFIG, manifest, splits["train"], splits["validation"], next_title.fastest_place()),
        LIMIT_MINUTES,
    )
    vocabulary = Vocabulary(manifest.catalogue)
    popularity = Popularity(vocabulary, manifest.popularity)
    _, viewer_of_row = np.unique(splits["train"]["profile_id"].to_numpy(), return_inverse=True)
    neighbours = ItemNeighbours(vocabulary, encode(splits["train"], vocabulary), viewer_of_row)
    scorers = {
        "model": trained.training.best(),
        "popularity": popularity,
        "item_knn": next_title.BackedOff(neighbours, popularity),
        "random": next_title.Random(vocabulary),
    }
    test = encode(splits["test"], vocabulary)
    ranks, shown = next_title.ranks_of(scorers, test, len(vocabulary))
    viewers = splits["test"]["profile_id"].to_numpy()
    return {
        **next_title.metrics(ranks, viewers),
        "coverage_at_10": round(shown["model"], 4),
        "rows": len(test),
        "viewers": len(np.unique(viewers)),
        "titles": len(vocabulary),
        **trained.facts,
        "config": CONFIG.as_dict(),
    }


def _read(folder: Path, split: str) -> pa.Table:
    """The rows of a split, in the order of `encode`."""
    files = sorted((folder / f"split={split}").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in files).sort_by("row_id")
