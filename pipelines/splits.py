"""The rows that a model learns from and is chosen by, as every process that trains reads them from a training set.

Each of them holds all rows in memory (`models.recommendation.training` says why), so each reads the Parquet files
itself. Through a Ray Dataset 100 rows took 10 to 60 s on two busy cores, for the processes that it starts; and they
came in no order that could be relied on, where an epoch's batches have to be the same on every worker and after every
restart. So the folder must lie where every node sees it, under the same path, as checkpoints must already.
"""

import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import EmptyTrainingSetError, TrainingSetError
from models.task import Task
from models.training_set import Manifest

LEARNT_SPLITS = ("train", "validation")


def require_splits(task: Task, manifest: Manifest, training_set: Path) -> None:
    """There are rows to learn from and rows to choose by, with the columns that the task reads.

    Raises:
        EmptyTrainingSetError: a split has no row.
        TrainingSetError: a column is missing.
    """
    for split in LEARNT_SPLITS:
        _files(task, training_set, split)
        if manifest.rows[split] == 0:
            raise EmptyTrainingSetError(split)


def read_splits(task: Task, training_set: Path) -> tuple[pa.Table, pa.Table]:
    """Train and validation rows in the order of the files, the columns that the task reads.

    Raises:
        EmptyTrainingSetError: a split has no file.
        TrainingSetError: this node does not see the folder, or a column is missing.
    """
    if not training_set.is_dir():
        raise TrainingSetError(
            f"no training set at {training_set} on the node {socket.gethostname()}, where a worker is to read it: "
            "training sets and checkpoints (work_dir) must lie where all nodes see them"
        )
    train, validation = (
        pa.concat_tables(
            (
                pq.read_table(path, columns=list(task.columns), partitioning=None)
                for path in _files(task, training_set, split)
            ),
            promote_options="default",
        )
        for split in LEARNT_SPLITS
    )
    return train, validation


def _files(task: Task, training_set: Path, split: str) -> list[Path]:
    """The split's files, each of which has the columns that the task reads."""
    files = sorted((training_set / f"split={split}").glob("*.parquet"))
    if not files:
        raise EmptyTrainingSetError(split)
    for file in files:
        received = pq.read_schema(file).names
        missing = [name for name in task.columns if name not in received]
        if missing:
            raise TrainingSetError(f"{file} lacks the columns {', '.join(missing)}; received {', '.join(received)}")
    return files
