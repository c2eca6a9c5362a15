"""MLflow: one experiment per model, one run per training, one registered version per run.

Everything is written through a client of a given address, never through MLflow's global state, and every write can
be repeated: a training that was killed and run again adds what is missing and doubles nothing.
"""

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from models.training_set import MANIFEST_FILE, Manifest
from pipelines.errors import ReelError

TRAINING_TAG = "reel.training"
_BATCH = 1_000  # metrics that MLflow takes in one call
_SQLITE = "sqlite:///"


class ModelNotRegisteredError(ReelError):
    """A version or an alias was asked for that the registry does not have."""


class Tracking:
    """MLflow at one address."""

    def __init__(self, uri: str) -> None:
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of every table it makes
        make_database(uri)
        self.uri = uri
        self.client = MlflowClient(uri, uri)
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]

    def open_run(self, experiment: str, training_id: str, tags: Mapping[str, str]) -> str:
        """The id of the run of this training: the one that was begun before, else a new one."""
        experiment_id = self._experiment(experiment)
        found = self.client.search_runs([experiment_id], f"tags.`{TRAINING_TAG}` = '{training_id}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        run = self.client.create_run(experiment_id, run_name=training_id, tags={TRAINING_TAG: training_id, **tags})
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Parameters of the run; the same ones may be logged again."""
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def log_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Tags of the run."""
        self.client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Metrics of the whole run; those it has already are left as they are."""
        known = self.client.get_run(run_id).data.metrics
        self._log(run_id, [(name, value, 0) for name, value in metrics.items() if name not in known])

    def log_epochs(self, run_id: str, epochs: Mapping[int, Mapping[str, float]]) -> None:
        """Metrics by epoch, `epoch` among them; the epochs that the run has already are left as they are."""
        # The metrics of an epoch are written by one call, so one of them tells whether all are there.
        known = {point.step for point in self.client.get_metric_history(run_id, "epoch")}
        for epoch, metrics in epochs.items():
            if epoch not in known:
                self._log(run_id, [(name, value, epoch) for name, value in metrics.items()])

    def _log(self, run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
        now_ms = int(time.time() * 1000)
        for start in range(0, len(points), _BATCH):
            batch = [Metric(name, value, now_ms, step) for name, value, step in points[start : start + _BATCH]]
            self.client.log_batch(run_id, metrics=batch)

    def log_training_set(self, run_id: str, manifest: Manifest, folder: Path) -> None:
        """What the run learnt from: an MLflow dataset, its manifest as a file, its facts as tags."""
        digest = manifest.digest[:36]  # the longest that MLflow keeps
        profile = {"rows": manifest.rows, "excluded": manifest.excluded, "titles": len(manifest.catalogue)}
        dataset = Dataset(
            name=manifest.name,
            digest=digest,
            source_type="local",
            source=json.dumps({"uri": str(folder)}),
            schema=json.dumps({"hash": manifest.schema_hash}),
            profile=json.dumps(profile),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        self.client.log_artifact(run_id, str(folder / MANIFEST_FILE), "training_set")
        tags = training_set_tags(
            folder,
            manifest.digest,
            manifest.purpose,
            manifest.features,
            manifest.code_version,
            manifest.snapshots,
            manifest.excluded,
        )
        self.log_tags(run_id, tags)

    def log_figure(self, run_id: str, figure: Any, path: str) -> None:
        """A matplotlib figure as an image of the run."""
        self.client.log_figure(run_id, figure, path)

    def end_run(self, run_id: str, status: str) -> None:
        """Closes the run as FINISHED or FAILED."""
        self.client.set_terminated(run_id, status)

    def version_of_run(self, model: str, run_id: str) -> ModelVersion | None:
        """The version that was registered from the run, if one was."""
        found = self.client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        return found[0] if found else None

    def register(
        self, model: str, run_id: str, saved: Path, loader: str, signature: ModelSignature, tags: Mapping[str, str]
    ) -> ModelVersion:
        """Registers the model saved in a folder as the one version of the run.

        1. The files go to the artifact store as a logged model, loadable through `loader` without pickled code.
        2. One insert makes the version, tags included: before it there is none, after it a whole one.
        """
        known = self.version_of_run(model, run_id)
        if known is not None:
            return known
        experiment_id = self.client.get_run(run_id).info.experiment_id
        logged = self.client.create_logged_model(experiment_id, name=model, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example.*")  # it would be run just to check itself
            folder = Path(scratch) / "model"
            mlflow.pyfunc.save_model(
                str(folder),
                loader_module=loader,
                data_path=str(saved),
                pip_requirements=["reel"],
                signature=signature,
                mlflow_model=Model(run_id=run_id, model_id=logged.model_id),
            )
            self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        return self.client.create_model_version(
            model, logged.artifact_location, run_id=run_id, tags=dict(tags), model_id=logged.model_id
        )

    def version(self, model: str, version: str | None) -> ModelVersion:
        """A version of a registered model; None means the newest.

        Raises:
            ModelNotRegisteredError: there is none.
        """
        if version is None:
            found = self.client.search_model_versions(f"name = '{model}'")
            if not found:
                raise ModelNotRegisteredError(f"no version of {model} is registered; run `reel train {model}` first")
            version = str(max(int(known.version) for known in found))
        try:
            return self.client.get_model_version(model, version)
        except MlflowException as error:
            raise ModelNotRegisteredError(f"{model} has no version {version}: {error.message}") from None

    def alias(self, model: str, alias: str) -> ModelVersion | None:
        """The version that bears the alias, if one does."""
        try:
            return self.client.get_model_version_by_alias(model, alias)
        except MlflowException as error:
            missing = error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST) or "alias" in error.message.lower()
            if missing:
                return None
            raise

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of every metric of the run."""
        return dict(self.client.get_run(run_id).data.metrics)

    def tag_version(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Tags of the version, over those it has."""
        for name, value in tags.items():
            self.client.set_model_version_tag(version.name, version.version, name, value)

    def set_alias(self, version: ModelVersion, alias: str) -> None:
        """Gives the alias to the version, and takes it from whichever had it, in one step."""
        self.client.set_registered_model_alias(version.name, alias, version.version)

    def remove_alias(self, model: str, alias: str) -> None:
        """Takes the alias from whichever version has it."""
        self.client.delete_registered_model_alias(model, alias)

    @contextmanager
    def fetched(self, version: ModelVersion) -> Iterator[Path]:
        """A folder that holds the version's own files, for the length of the block."""
        # By its download address: `models:/name/version` would be resolved at MLflow's global address.
        uri = self.client.get_model_version_download_uri(version.name, version.version)
        with tempfile.TemporaryDirectory() as scratch:
            root = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch, tracking_uri=self.uri)
            yield next((Path(root) / "data").iterdir())

    def _experiment(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        try:
            return str(self.client.create_experiment(name, artifact_location=self._artifacts(name)))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            return self._experiment(name)  # another process was quicker

    def _artifacts(self, experiment: str) -> str | None:
        """Where artifacts go: beside a SQLite file, which else would have them in the working folder."""
        if not self.uri.startswith(_SQLITE):
            return None
        return str(Path(self.uri.removeprefix(_SQLITE)).parent / "mlflow_artifacts" / experiment)


def make_database(uri: str) -> None:
    """Makes MLflow's database if the address is a SQLite file that is not there: after this it is there, and whole.

    MLflow itself makes tables one by one and without a lock: of two processes that open a new file at once, a
    training and a service that looks for models say, one would fail. So the tables are made in a file of their own,
    which then gets the name that others open, if no other process was first.
    """
    if not uri.startswith(_SQLITE):
        return
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import make_url

    address = make_url(uri)
    name = address.database
    if not name or name == ":memory:" or name.startswith("file:") or Path(name).exists():
        return
    database = Path(name)
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=database.parent) as scratch:
        made = Path(scratch) / database.name
        store = SqlAlchemyStore(str(address.set(database=str(made))), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
        store.engine.dispose()  # MLflow keeps its connections, and SQLite must not know a file by two names
        # A link, since renaming would replace the database of whoever was first. It is refused if somebody was, and on
        # a file system without hard links, where MLflow then makes its tables in their place as it always did.
        with suppress(OSError):
            os.link(made, database)


def training_set_tags(
    folder: Path,
    digest: str,
    purpose: str,
    features: Sequence[str],
    code_version: str,
    snapshots: Mapping[str, int | str],
    excluded: Mapping[str, int],
) -> dict[str, str]:
    """What a run says of the training set it learnt from."""
    facts: dict[str, object] = {
        "training_set.folder": folder,
        "training_set.digest": digest,
        "training_set.purpose": purpose,
        "training_set.features": ", ".join(features),
        "training_set.code_version": code_version,
    }
    facts |= {f"training_set.snapshot.{table}": value for table, value in snapshots.items()}
    facts |= {f"training_set.excluded.{reason}": count for reason, count in excluded.items()}
    return {_tag(name): str(value) for name, value in facts.items()}


def _tag(name: str) -> str:
    """A name MLflow takes: it refuses some punctuation in tag names."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
