"""The training set that a model learns from: built, and found again by whoever trains.

A model's task names a declared `TrainingSet`, or none: then it is the recommender's own.
"""

from collections.abc import Callable
from pathlib import Path

from models.task import Task
from pipelines.errors import ReelError
from pipelines.report import StationReport
from pipelines.settings import Settings
from pipelines.training_sets.built import newest, point_to
from pipelines.training_sets.named import training_set_named


class NoTrainingSetError(ReelError):
    """A model was to be trained of whose training set none was built yet."""


def build_for(
    settings: Settings, task: Task, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> StationReport:
    """Build the model's training set of what there is now, or find that it was built; it is the newest from then on."""
    from pipelines.training_set import build_training_set
    from pipelines.training_sets.building import build

    if task.training_set is None:
        return build_training_set(settings, purpose=task.purpose, on_progress=on_progress)
    built = build(settings, training_set_named(task.training_set))
    point_to(built.folder, built.name)
    on_progress(1, 1)
    report = built.report()
    report.wrote["folder"] = str(built.folder)
    return report


def latest_for(work_dir: Path, task: Task) -> Path:
    """The folder of the model's newest training set.

    Raises:
        NoTrainingSetError, EmptyTrainingSetError: none was built.
    """
    from pipelines.training_set import latest_training_set

    if task.training_set is None:
        return latest_training_set(work_dir)
    folder = newest(work_dir, training_set_named(task.training_set).name)
    if folder is None:
        raise NoTrainingSetError(
            f"no training set of {task.name} under {work_dir}; run `reel training-set build {task.name}` first"
        )
    return folder
