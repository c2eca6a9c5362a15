"""Ray Train as Reel needs it: its list of checkpoints whole, its trainers without processes that have no work.

A worker who is alone needs nobody to find others by: gloo's thread looks a hundred times a second whether one came.

Ray Train gives every training a process that hands out Ray's data sets, while Reel's workers read the splits
themselves; one that gives back the room of a training whose controller died, which a Ray that ends with this process
does by ending; and one that asks for more nodes, of which such a Ray has none to give. Each takes seconds of a
processor to start, and 1 % of one from then on, for which workers on all processors wait.
"""

import json
from pathlib import Path
from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from models.task import Library
from pipelines.cluster import is_our_own
from pipelines.train_looks import RareLooks

_SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"  # Ray Train's own list of checkpoints


def trainer_of(library: Library, workers: int) -> Any:
    """The trainer whose workers, if several, find each other as the library wants it: gloo or NCCL, Rabit, sockets."""
    cannot_grow = is_our_own()
    idle = (DatasetsCallback, PlacementGroupCleanerCallback) if cannot_grow else (DatasetsCallback,)
    trainer = DataParallelTrainer if workers == 1 else _theirs(library)

    class Trainer(trainer):  # type: ignore[misc, valid-type]  # which is known when it is asked for
        """Theirs, with less around it."""

        def _create_default_callbacks(self) -> list[Any]:
            wanted = [one for one in super()._create_default_callbacks() if not isinstance(one, idle)]
            return [*wanted, RareLooks()]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            if cannot_grow:
                given["scaling_policy"] = TheseNodes(self.scaling_config)
            return super()._initialize_and_run_controller(**given)

    return Trainer


class TheseNodes(FixedScalingPolicy):
    """As many workers as were asked for, and nobody is asked for nodes to put them on."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Theirs begins to ask."""

    def _maybe_send_resource_request(self) -> None:
        """Theirs asks."""


def _theirs(library: Library) -> Any:
    if library == "xgboost":
        from ray.train.xgboost import XGBoostTrainer

        return XGBoostTrainer
    if library == "lightgbm":
        from ray.train.lightgbm import LightGBMTrainer

        return LightGBMTrainer
    from ray.train.torch import TorchTrainer

    return TorchTrainer


def mend_list_of_checkpoints(folder: Path) -> None:
    """Takes away Ray Train's list of checkpoints if a kill cut its writing short; the checkpoints themselves stay."""
    snapshot = folder / _SNAPSHOT_FILE
    if not snapshot.exists():
        return
    try:
        json.loads(snapshot.read_text())
    except ValueError:
        snapshot.unlink()
