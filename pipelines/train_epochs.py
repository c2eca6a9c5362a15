"""Epochs as they are reported: Ray Train's controller writes them to a file, whoever waits for the training reads it.

The controller is a process of its own. All that it would have to import to speak to MLflow costs more than a small
training, and it may not see a SQLite store as the driver does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train

EPOCHS_FILE = "epochs.jsonl"


class RecordEpochs(ray.train.UserCallback):
    """Appends every epoch to a file in the training's folder, which the driver sees."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EPOCHS_FILE

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """One epoch: the first worker's metrics, which are the same on all."""
        with self._path.open("a") as file:
            file.write(json.dumps(metrics[0]) + "\n")


def recorded_epochs(folder: Path) -> Mapping[int, Mapping[str, float]]:
    """Metrics by epoch, of everything that was reported so far, before a kill too."""
    path = folder / EPOCHS_FILE
    if not path.exists():
        return {}
    whole, _, _ = path.read_text().rpartition("\n")  # the line after it is being written, or was cut short
    epochs: dict[int, Mapping[str, float]] = {}
    for line in whole.splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue  # a kill cut it short, and the next report was written behind it
        epochs[int(metrics["epoch"])] = metrics
    return epochs
