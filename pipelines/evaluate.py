"""Evaluate: one look at the test period, for one registered version.

Input     a version of the registered model, the training set it came from (split=test)
Does      ranks the whole catalogue for every test row, beside popularity; 95 % intervals by viewer; slices
Output    `test_*` metrics and plots in the version's run, and a mark on the version: it has seen its test period
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from mlflow.entities.model_registry import ModelVersion

from models.errors import EmptyTrainingSetError
from models.intervals import Interval
from models.ranking import coverage
from models.recommendation.batches import Sequences, Vocabulary, encode
from models.recommendation.evaluation import CUT, Compared, Ranked, Scorer, compare, rank_rows, slices
from models.recommendation.popularity import Popularity
from models.recommendation.recommender import Recommender
from models.training_set import Manifest, read_manifest
from pipelines.errors import ReelError
from pipelines.plots import slice_bars
from pipelines.report import Facts, StationReport, timed
from pipelines.tracking import Tracking

SEED = 17  # of the bootstrap: the same rows give the same intervals
EVALUATED_TAG = "evaluated"


class TrainingSetChangedError(ReelError):
    """The training set that a version came from is not there any more, or is another one now."""


@dataclass(frozen=True)
class TestPeriod:
    """The test rows of a training set, read and encoded once."""

    manifest: Manifest
    table: pa.Table
    sequences: Sequences
    vocabulary: Vocabulary

    @property
    def popularity(self) -> Popularity:
        """The baseline: most finished in the training period."""
        return Popularity(self.vocabulary, self.manifest.popularity)

    @property
    def viewers(self) -> npt.NDArray[np.generic]:
        """[rows] who each row belongs to, numbered."""
        return np.unique(self.table["profile_id"].to_numpy(), return_inverse=True)[1]

    @property
    def label_times_ms(self) -> npt.NDArray[np.int64]:
        """[rows] when each row's label was finished, milliseconds since the epoch, UTC."""
        first = pc.list_element(self.table["label_timestamps"], 0).cast(pa.timestamp("ms", tz="UTC"))
        return first.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]

    def ranked(self, scorer: Scorer, rows: npt.NDArray[np.int64] | None = None) -> Ranked:
        """`rows` as `scorer` ranks them; every row if None."""
        rows = np.arange(len(self.sequences)) if rows is None else rows
        return rank_rows(scorer, self.sequences, len(self.vocabulary), rows)


def evaluate(model: str, *, tracking_uri: str, version: str | None = None) -> StationReport:
    """Judge a version on its training set's test period, once; asked again, it answers from what was logged.

    1. Read the test rows of the training set that the version's tags name.
    2. Rank, against popularity on the same rows.
    3. Log metrics, slices and plots in the version's run.
    4. Mark the version.

    Args:
        model: the registered model's name.
        tracking_uri: MLflow's address.
        version: None means the newest.

    Raises:
        ModelNotRegisteredError: no such version.
        TrainingSetChangedError: its training set is not what it was trained on.
        EmptyTrainingSetError: there is no test row.
    """
    tracking = Tracking(tracking_uri)
    with timed("evaluate") as report:
        judged = tracking.version(model, version)
        report.read = {"model": model, "version": str(judged.version)}
        if EVALUATED_TAG in judged.tags:
            report.did = {"already evaluated": judged.tags[EVALUATED_TAG], **_logged(tracking, judged)}
            return report
        period = read_test_period(judged)
        report.read["test rows"] = len(period.sequences)
        with tracking.fetched(judged) as folder:
            recommender = Recommender.load(folder)
        metrics, sliced = _judge(recommender, period)
        run_id = str(judged.run_id)
        tracking.log_metrics(run_id, metrics)
        figure = slice_bars(sliced, f"{model} {judged.version}: who is served how well")
        tracking.log_figure(run_id, figure, "plots/test_slices.png")
        tracking.tag_version(judged, {EVALUATED_TAG: period.manifest.name})
        report.did = {"viewers": sliced["all"].viewers, **_headline(metrics)}
        report.wrote = {"metrics": len(metrics), "plots": 1, "run": run_id}
    return report


def read_test_period(version: ModelVersion) -> TestPeriod:
    """The test rows of the training set that the version's tags name.

    Raises:
        TrainingSetChangedError: it is gone or changed.
        EmptyTrainingSetError: it has no test row.
    """
    folder = Path(version.tags["training_set"])
    if not folder.is_dir():
        raise TrainingSetChangedError(
            f"the training set of {version.name} {version.version} is gone: {folder}; train again"
        )
    manifest = read_manifest(folder)
    if manifest.digest != version.tags["training_set_digest"]:
        raise TrainingSetChangedError(
            f"{folder} is not what {version.name} {version.version} was trained on any more "
            f"(digest {manifest.digest[:12]}, then {version.tags['training_set_digest'][:12]}); train again"
        )
    files = sorted((folder / "split=test").glob("*.parquet"))
    if not files or manifest.rows["test"] == 0:
        raise EmptyTrainingSetError("test")
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]).sort_by("row_id")
    vocabulary = Vocabulary(manifest.catalogue)
    return TestPeriod(manifest, table, encode(table, vocabulary), vocabulary)


def _judge(recommender: Recommender, period: TestPeriod) -> tuple[dict[str, float], dict[str, Compared]]:
    """Every metric by name, and the comparison with popularity in every slice, `all` first."""
    ranked = period.ranked(recommender)
    ranks, others = ranked.ranks, period.ranked(period.popularity).ranks
    viewers = period.viewers
    finished = period.popularity.score([period.sequences.history(0)])[0]
    masks = {"all": np.ones(len(ranks), bool), **slices(period.table, period.sequences, finished)}
    sliced = {
        name: compare(ranks[mask], others[mask], viewers[mask], SEED) for name, mask in masks.items() if mask.any()
    }
    metrics = {"test_catalogue_coverage_at_10": coverage(ranked.best, len(period.vocabulary))}
    for name, compared in sliced.items():
        metrics |= _named(compared, "test" if name == "all" else f"test_slice_{_slug(name)}")
    return metrics, sliced


def _named(compared: Compared, prefix: str) -> dict[str, float]:
    intervals: Mapping[str, Interval] = {
        f"{prefix}_ndcg_at_{CUT}": compared.ndcg,
        f"{prefix}_hr_at_{CUT}": compared.hit_rate,
        f"{prefix}_mrr": compared.reciprocal_rank,
        f"{prefix}_popularity_ndcg_at_{CUT}": compared.other_ndcg,
        f"{prefix}_popularity_hr_at_{CUT}": compared.other_hit_rate,
        f"{prefix}_ndcg_gain_at_{CUT}": compared.ndcg_gain,
    }
    named = {f"{prefix}_rows": float(compared.rows)}
    for name, interval in intervals.items():
        named |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return named


def _slug(name: str) -> str:
    """A slice's name as a part of a metric's."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def _headline(metrics: Mapping[str, float]) -> Facts:
    names = (
        "test_ndcg_at_10",
        "test_ndcg_at_10_low",
        "test_ndcg_at_10_high",
        "test_popularity_ndcg_at_10",
        "test_ndcg_gain_at_10_low",
        "test_hr_at_10",
        "test_popularity_hr_at_10",
        "test_catalogue_coverage_at_10",
    )
    return {name: metrics[name] for name in names if name in metrics}


def _logged(tracking: Tracking, version: ModelVersion) -> Facts:
    return _headline(tracking.metrics(str(version.run_id)))
