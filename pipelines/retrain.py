"""Retrain: the whole way from what is known now to the champion, for every model that is due.

Input     what `pipelines.freshness` says is due, or the models that are named
Does      for each: training set, train, evaluate, publish; what was cut short goes on from where it was
Output    for each, why it was due and what came of it; a model that fails does not keep the others waiting
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from features.errors import FeatureError
from models.errors import ModelError
from models.task import Task, load_task
from pipelines.errors import ReelError
from pipelines.evaluate import evaluate
from pipelines.freshness import CONFIRMED_TAG, Freshness, freshness
from pipelines.hyperparameters import hyperparameters
from pipelines.lakehouse.lineage import reported
from pipelines.model_training_set import build_for
from pipelines.publish import publish
from pipelines.report import StationReport, timed
from pipelines.settings import Settings
from pipelines.tracking import Tracking
from pipelines.train import train


class RetrainingFailedError(ReelError):
    """Some models could not be retrained; the others were."""


def retrain(
    settings: Settings,
    names: Sequence[str] = (),
    *,
    on_step: Callable[[str, str], None] = lambda model, step: None,
) -> StationReport:
    """Retrain the models of `names`, due or not; of no names, every model that is due.

    Args:
        settings: where everything is.
        names: of models.
        on_step: called with (model, what is done now).

    Raises:
        UnknownModelError: no such model.
        RetrainingFailedError: some failed, after all others were done.
    """
    failures: dict[str, Exception] = {}
    with timed("retrain") as report:
        for model in freshness(settings, names=names):
            if model.due is None and not names:
                report.read[model.model] = model.words
                continue
            report.read[model.model] = model.due or "asked for"
            on_step(model.model, str(report.read[model.model]))
            try:
                report.did[model.model] = _retrained(settings, model, on_step)
            except (ModelError, ReelError, FeatureError) as error:
                failures[model.model] = error
    if failures:
        said = "; ".join(f"{model}: {' '.join(str(error).split())}" for model, error in failures.items())
        done = f"; retrained: {', '.join(report.did)}" if report.did else ""
        raise RetrainingFailedError(f"{len(failures)} of {len(report.did) + len(failures)} models failed: {said}{done}")
    return report


def _retrained(settings: Settings, model: Freshness, on_step: Callable[[str, str], None]) -> str:
    """What came of it, in one line."""
    task = load_task(model.model)

    def run(station: str, work: Callable[[], StationReport]) -> StationReport:
        on_step(task.name, station)
        return reported(settings, station, work, task.purpose)

    on_step(task.name, "training set")
    folder = build_for(settings, task).wrote["folder"]
    trained = run("train", partial(train, task.name, Path(str(folder)), **_order(settings, task)))
    version = str(trained.wrote["version"])
    where: dict[str, Any] = {"tracking_uri": settings.tracking_uri, "version": version}
    run("evaluate", partial(evaluate, task.name, **where))
    published = run("publish", partial(publish, task.name, **where))
    said = f"version {version} {published.did['decision']}: {published.did['reason']}"
    if "already trained" not in trained.did:
        return said
    tracking = Tracking(settings.tracking_uri)
    tracking.tag_version(tracking.version(task.name, version), {CONFIRMED_TAG: str(int(time.time() * 1000))})
    return f"nothing new to learn from since version {version} was trained; {said}"


def _order(settings: Settings, task: Task) -> dict[str, Any]:
    return {
        "tracking_uri": settings.tracking_uri,
        "storage": settings.work_dir / "checkpoints",
        "configuration": hyperparameters(settings, task.name, ()),
        "workers": settings.training.workers,
        "use_gpu": settings.training.use_gpu,
    }
