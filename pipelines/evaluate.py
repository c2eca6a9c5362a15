"""Evaluate: one look at the test period, for one registered version.

Input     a version of the registered model, the training set it came from (split=test)
Does      judges it as `models.NAME` says, beside its baselines; 95 % intervals; slices
Output    `test_*` metrics and plots in the version's run, and a mark on the version: it has seen its test period
"""

import json
from collections.abc import Mapping, Sequence

from models.judged import Judged
from models.task import Task, load_task
from pipelines.judging import EVALUATED_TAG, SEED, TrainingSetChangedError, headline_of, metrics_of, read_test_period
from pipelines.plots import chart, slice_bars
from pipelines.report import Facts, StationReport, timed
from pipelines.tracking import Tracking

__all__ = ["TrainingSetChangedError", "evaluate"]
_HEADLINE_TAG = "evaluated.headline"


def evaluate(model: str, *, tracking_uri: str, version: str | None = None) -> StationReport:
    """Judge a version on its training set's test period, once; asked again, it answers from what was logged.

    1. Read the test rows of the training set that the version's tags name.
    2. Judge, against the baselines on the same rows.
    3. Log metrics, slices and plots in the version's run.
    4. Mark the version.

    Args:
        model: the registered model's name.
        tracking_uri: MLflow's address.
        version: None means the newest.

    Raises:
        UnknownModelError: there is no such model.
        ModelNotRegisteredError: no such version.
        TrainingSetChangedError: its training set is not what it was trained on.
        EmptyTrainingSetError: there is no test row.
        ModelError: the test rows cannot be judged: of one class only, without a column.
    """
    task, tracking = load_task(model), Tracking(tracking_uri)
    with timed("evaluate") as report:
        found = tracking.version(model, version)
        run_id = str(found.run_id)
        report.read = {"model": model, "version": str(found.version)}
        if EVALUATED_TAG in found.tags:
            names = json.loads(found.tags.get(_HEADLINE_TAG, "[]"))
            report.did = {"already evaluated": found.tags[EVALUATED_TAG], **_of(tracking.metrics(run_id), names)}
            return report
        period = read_test_period(task, found)
        report.read["test rows"] = len(period.rows)
        with tracking.fetched(found) as folder:
            judged = task.evaluate(folder, period.manifest, period.rows, SEED)
        metrics, names = metrics_of(judged), headline_of(judged)
        tracking.log_metrics(run_id, metrics)
        plots = _log_plots(task, tracking, run_id, judged, str(found.version))
        tracking.tag_version(found, {_HEADLINE_TAG: json.dumps(names), EVALUATED_TAG: period.manifest.name})
        report.did = {judged.unit: judged.whole.units, **_of(metrics, names)}
        report.wrote = {"metrics": len(metrics), "plots": plots, "run": run_id}
    return report


def _log_plots(task: Task, tracking: Tracking, run_id: str, judged: Judged, version: str) -> int:
    figure = slice_bars(judged, f"{task.name} {version}: who is served how well")
    tracking.log_figure(run_id, figure, "plots/test_slices.png")
    for name, drawn in judged.charts.items():
        tracking.log_figure(run_id, chart(drawn, f"{task.name} {version}: {name}"), f"plots/test_{name}.png")
    return 1 + len(judged.charts)


def _of(metrics: Mapping[str, float], names: Sequence[str]) -> Facts:
    return {name: metrics[name] for name in names if name in metrics}
