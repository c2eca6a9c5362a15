"""What evaluation and publication share: the test rows of a registered version, and what a judgement is called."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities.model_registry import ModelVersion

from models.errors import EmptyTrainingSetError
from models.intervals import Interval
from models.judged import Figure, Judged, Slice
from models.task import Task
from models.training_set import Manifest, read_manifest
from pipelines.errors import ReelError

SEED = 17  # of the bootstrap: the same rows give the same intervals
EVALUATED_TAG = "evaluated"
FEWEST_UNITS = 20  # a slice of fewer says more of chance than of the model
_ROW_ID = "row_id"


class TrainingSetChangedError(ReelError):
    """The training set that a version came from is not there any more, or is another one now."""


@dataclass(frozen=True)
class TestPeriod:
    """The test rows of a training set, with all their columns, and its manifest."""

    manifest: Manifest
    rows: pa.Table


def read_test_period(task: Task, version: ModelVersion) -> TestPeriod:
    """The test rows of the training set that the version's tags name, in ascending `row_id` where they have one.

    Raises:
        TrainingSetChangedError: it is gone or changed.
        EmptyTrainingSetError: it has no test row.
    """
    folder = Path(version.tags["training_set"])
    if not folder.is_dir():
        raise TrainingSetChangedError(
            f"the training set of {version.name} {version.version} is gone: {folder}; train again"
        )
    manifest = read_manifest(folder, task.needs)
    if manifest.digest != version.tags["training_set_digest"]:
        raise TrainingSetChangedError(
            f"{folder} is not what {version.name} {version.version} was trained on any more "
            f"(digest {manifest.digest[:12]}, then {version.tags['training_set_digest'][:12]}); train again"
        )
    files = sorted((folder / "split=test").glob("*.parquet"))
    if not files or manifest.rows["test"] == 0:
        raise EmptyTrainingSetError("test")
    rows = pa.concat_tables([pq.read_table(path, partitioning=None) for path in files])
    return TestPeriod(manifest, rows.sort_by(_ROW_ID) if _ROW_ID in rows.column_names else rows)


def metrics_of(judged: Judged, prefix: str = "test") -> dict[str, float]:
    """Every figure by the name it is logged under; an interval's ends are `_low` and `_high`.

    Of all slices that are not tiny, the least and the greatest figure are there too, by how much they are apart.
    """
    metrics = _named(judged.whole, prefix)
    for name, one in judged.slices.items():
        metrics |= _named(one, f"{prefix}_slice_{_slug(name)}")
    shown = [mean(one.figures[judged.shown[0]]) for one in judged.slices.values() if one.units >= FEWEST_UNITS]
    if shown:
        metrics[f"{prefix}_slices_{judged.shown[0]}_least"] = min(shown)
        metrics[f"{prefix}_slices_{judged.shown[0]}_greatest"] = max(shown)
    return metrics


def headline_of(judged: Judged, prefix: str = "test") -> list[str]:
    """The names in `metrics_of` of the figures that are said first."""
    figures = judged.whole.figures
    return [name for figure in judged.headline for name, _ in _values(f"{prefix}_{figure}", figures[figure])]


def mean(figure: Figure) -> float:
    """The figure without its interval."""
    return figure.mean if isinstance(figure, Interval) else float(figure)


def _named(one: Slice, prefix: str) -> dict[str, float]:
    named = {f"{prefix}_rows": float(one.rows), f"{prefix}_units": float(one.units)}
    for name, figure in one.figures.items():
        named |= dict(_values(f"{prefix}_{name}", figure))
    return named


def _values(name: str, figure: Figure) -> Iterator[tuple[str, float]]:
    yield name, mean(figure)
    if isinstance(figure, Interval):
        yield f"{name}_low", figure.low
        yield f"{name}_high", figure.high


def _slug(name: str) -> str:
    """A slice's name as a part of a metric's."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name).split())
