"""The planted training set, read."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.recommendation.model import RecommenderConfig
from models.recommendation.training import RecommenderTraining
from models.task import Place
from models.training_set import Manifest, read_manifest
from tests.models.recommendation.planted import Planted, write_training_set

SMALL = {"dim": 32, "blocks": 1, "heads": 1, "dropout": 0.1, "max_length": 40, "epochs": 20, "patience": 20}


@dataclass(frozen=True)
class ReadSet:
    planted: Planted
    manifest: Manifest
    splits: dict[str, pa.Table]

    def start(self, place: Place = Place(), **changes: float) -> RecommenderTraining:  # noqa: B008 - frozen
        config = RecommenderConfig.from_dict({**SMALL, **changes})
        return RecommenderTraining(config, self.manifest, self.splits["train"], self.splits["validation"], place)


def read_set(planted: Planted) -> ReadSet:
    splits = {
        split: pa.concat_tables(
            pq.read_table(path, partitioning=None)
            for path in sorted((planted.folder / f"split={split}").glob("*.parquet"))
        )
        for split in ("train", "validation", "test")
    }
    return ReadSet(planted, read_manifest(planted.folder), splits)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ReadSet:
    """200 viewers who follow a hidden order of 60 titles nine times in ten."""
    folder: Path = tmp_path_factory.mktemp("training_set")
    return read_set(write_training_set(folder))
