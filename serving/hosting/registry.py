"""MLflow, as far as the service reads it: which version an alias names, and that version's files."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

# What MLflow says of a model, or of an alias, that is not there.
_MISSING = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}
_SQLITE = "sqlite:///"


class Registry:
    """MLflow at one address."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MlflowClient | None = None
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]

    def version(self, model: str, alias: str) -> ModelVersion | None:
        """The version that bears the alias, if one does. Raises MlflowException or OSError if nobody can say."""
        if self._uri.startswith(_SQLITE) and not Path(self._uri.removeprefix(_SQLITE)).is_file():
            # MLflow would make an empty database there. One that is there is whole: training puts it there so.
            raise FileNotFoundError("there is no MLflow database at the address of the registry")
        if self._client is None:
            self._client = MlflowClient(self._uri, self._uri)
        try:
            return self._client.get_model_version_by_alias(model, alias)
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise

    @contextmanager
    def fetched(self, version: ModelVersion) -> Iterator[Path]:
        """The folder that the version's model was saved in, for the length of the block.

        Raises MlflowException or OSError if it cannot be had, FileNotFoundError if it is no model of ours.
        """
        assert self._client is not None, "a version was looked up before"
        # By its download address: `models:/name/version` would be resolved at MLflow's global address.
        uri = self._client.get_model_version_download_uri(version.name, version.version)
        with tempfile.TemporaryDirectory(prefix="reel-model-") as scratch:
            root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch, tracking_uri=self._uri))
            described = root / "MLmodel"
            if not described.is_file():
                raise FileNotFoundError(f"{version.name} {version.version} holds no MLmodel")
            yield root / Model.load(str(described)).flavors["python_function"]["data"]
