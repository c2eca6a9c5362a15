"""A declared training set as an MLflow dataset: `built.as_mlflow_dataset()`, `built.log_to_mlflow()`.

Of the rows only where they lie is written: they are people's, and MLflow keeps what it is told.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source_registry import get_dataset_source_from_json

from pipelines.tracking import training_set_tags

_LONGEST_DIGEST = 36  # that MLflow keeps


class TrainingSetDataset(Dataset):
    """The folder, the columns and the counts of a training set; `digest` is its manifest's."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], digest: str) -> None:
        self.folder, self.manifest, self.whole_digest = folder, manifest, digest
        source = get_dataset_source_from_json(json.dumps({"uri": str(folder)}), "local")
        super().__init__(source, manifest["name"])

    def _compute_digest(self) -> str:
        return self.whole_digest[:_LONGEST_DIGEST]

    @property
    def schema(self) -> dict[str, Any]:
        """Columns and their types, which of them are features, and the schema's hash."""
        columns = dict(self.manifest["schema"])
        return {"hash": self.manifest["schema_hash"], "columns": columns, "features": self.manifest["columns"]}

    @property
    def profile(self) -> dict[str, Any]:
        """Rows by split, and rows left out by reason."""
        return {name: self.manifest[name] for name in ("rows", "excluded", "counts")}

    def to_dict(self) -> dict[str, str]:
        """As MLflow writes it."""
        return super().to_dict() | {"schema": json.dumps(self.schema), "profile": json.dumps(self.profile)}


def log_dataset(dataset: TrainingSetDataset, manifest_file: Path, context: str) -> None:
    """Tell the active MLflow run what it learns from: the dataset, its manifest as a file, its facts as tags."""
    manifest = dataset.manifest
    mlflow.log_input(dataset, context=context)
    mlflow.log_artifact(str(manifest_file), "training_set")
    tags = training_set_tags(
        dataset.folder,
        dataset.whole_digest,
        manifest["purpose"],
        manifest["features"],
        manifest["code_version"],
        manifest["snapshots"],
        manifest["excluded"],
    )
    mlflow.set_tags(tags)
