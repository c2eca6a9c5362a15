"""A training set that was built: its folder, its manifest, its rows."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UsageError
from pipelines.report import StationReport
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.training_sets.mlflow_dataset import TrainingSetDataset

MANIFEST_FILE = "manifest.json"
_POINTER_SUFFIX = ".latest"
_NEEDED = ("format", "name", "declaration", "snapshots", "split_ms", "rows", "excluded", "counts", "files", "data_ms")


class ManifestError(UsageError):
    """A file is no manifest of a declared training set."""


@dataclass(frozen=True)
class BuiltTrainingSet:
    """One folder of Parquet files by split, with the manifest that they can be made again from."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "BuiltTrainingSet":
        """What lies in a folder. Raises ManifestError."""
        return cls(folder, read_manifest(folder / MANIFEST_FILE))

    @property
    def name(self) -> str:
        """As declared."""
        return str(self.manifest["name"])

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        return dict(self.manifest["rows"])

    @property
    def left_out(self) -> dict[str, int]:
        """Rows that are in no split, by reason."""
        return dict(self.manifest["excluded"])

    @cached_property
    def digest(self) -> str:
        """What makes this training set this one."""
        return digest_of_manifest(self.manifest)

    def report(self) -> StationReport:
        """Its counts, as other stations tell theirs."""
        report = StationReport("training-set", wrote={f"{split} rows": n for split, n in self.rows.items()})
        report.did = {f"rows left out: {reason}": count for reason, count in self.left_out.items()}
        return report

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows."""
        return pq.read_schema(self.folder / next(iter(self.manifest["files"])))

    def as_mlflow_dataset(self) -> "TrainingSetDataset":
        """As MLflow takes it: `mlflow.log_input(built.as_mlflow_dataset(), context="training")`."""
        from pipelines.training_sets.mlflow_dataset import TrainingSetDataset  # MLflow takes seconds to import

        return TrainingSetDataset(self.folder, self.manifest, self.digest)

    def log_to_mlflow(self, context: str = "training") -> None:
        """Tell the active MLflow run what it learns from: this dataset, its manifest as a file, its facts as tags."""
        from pipelines.training_sets.mlflow_dataset import log_dataset

        log_dataset(self.as_mlflow_dataset(), self.folder / MANIFEST_FILE, context)

    def paths(self, split: str) -> list[Path]:
        """The Parquet files of a split: for Ray Data, Polars' scans, whatever reads them."""
        return [self.folder / name for name in self.manifest["files"] if name.startswith(f"split={split}/")]

    def frame(self, split: str) -> pl.DataFrame:
        """A split in this process's memory; empty where it has no row."""
        paths = self.paths(split)
        return pl.read_parquet(paths) if paths else pl.DataFrame(self.schema.empty_table())


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a file.

    Raises:
        ManifestError: there is none, or it is another's.
    """
    try:
        manifest: Any = json.loads(path.read_text())
    except FileNotFoundError:
        raise ManifestError(f"there is no manifest at {path}; name the manifest.json of a training set") from None
    except (ValueError, IsADirectoryError) as error:
        raise ManifestError(f"{path} is no manifest ({error}); name the manifest.json of a training set") from None
    missing = [name for name in _NEEDED if not isinstance(manifest, dict) or name not in manifest]
    if missing:
        raise ManifestError(
            f"{path} is no manifest of a declared training set: it lacks {', '.join(missing)}; the recommender's set "
            "is built again by `reel training-set`"
        )
    return dict(manifest)


def digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest in canonical JSON, 64 hex digits."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def folder_of(settings: Settings, name: str, facts: Mapping[str, Any]) -> Path:
    """Where a set made from these facts lies."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return settings.work_dir / "training_sets" / f"{name}-{digest[:12]}"


def publish(staged: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and give the folder its name, in one step."""
    (staged / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def point_to(folder: Path, name: str) -> None:
    """Make a folder the newest training set of that name."""
    pointer = folder.parent / f"{name}{_POINTER_SUFFIX}"
    draft = pointer.with_suffix(".draft")
    draft.write_text(folder.name)
    draft.replace(pointer)


def newest(work_dir: Path, name: str) -> Path | None:
    """The folder of the newest training set of that name, if one was built."""
    pointer = work_dir / "training_sets" / f"{name}{_POINTER_SUFFIX}"
    return pointer.parent / pointer.read_text().strip() if pointer.exists() else None
