"""On real people the recommender ranks the next title better than popularity, by more than noise."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.recommendation.batches import Vocabulary, encode
from models.recommendation.evaluation import compare, rank_rows
from models.recommendation.model import RecommenderConfig
from models.recommendation.popularity import Popularity
from models.recommendation.training import RecommenderTraining
from models.task import Place
from models.training_set import read_manifest
from tests.models.recommendation.movielens import write_training_set


@pytest.mark.realdata
@pytest.mark.slow
def test_beats_popularity_on_a_later_period(shared_data: Path, tmp_path: Path) -> None:
    write_training_set(tmp_path, shared_data / "ml-100k" / "u.data")
    manifest = read_manifest(tmp_path)
    assert manifest.rows == {"train": 1_219, "validation": 10_001, "test": 10_000}

    def read(split: str) -> pa.Table:
        paths = sorted((tmp_path / f"split={split}").glob("*.parquet"))
        return pa.concat_tables(pq.read_table(path, partitioning=None) for path in paths).sort_by("row_id")

    config = RecommenderConfig(epochs=2, judged_rows=200)  # a twentieth of the training that it is given in earnest
    training = RecommenderTraining(config, manifest, read("train"), read("validation"), Place())
    assert training.facts["train_labels"] == 79_999
    while not training.done:
        training.epoch()

    test, vocabulary = read("test"), Vocabulary(manifest.catalogue)
    sequences = encode(test, vocabulary)
    rows = np.arange(0, len(sequences), 4)
    ranks, popular = (
        rank_rows(scorer, sequences, len(vocabulary), rows).ranks
        for scorer in (training.best(), Popularity(vocabulary, manifest.popularity))
    )
    compared = compare(ranks, popular, test["profile_id"].to_numpy()[rows], seed=1)
    assert compared.ndcg_gain.above_zero
    assert compared.ndcg.low > compared.other_ndcg.high
