"""What an MLflow server keeps, looked through by its API: what it says of everything, and every artefact."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from pipelines.tracking import Tracking

_PAGE = 500


def records(uri: str) -> Iterator[tuple[str, bytes]]:
    """(what, what is said of it, as JSON) of every experiment, run, logged model, registered model and version.

    Deleted experiments and runs too, which MLflow keeps until `mlflow gc`.
    """
    client = Tracking(uri).client
    experiments = _every(client.search_experiments, view_type=ViewType.ALL)
    yield from ((f"experiment {one.name}", _json(one)) for one in experiments)
    for run in _runs(client, experiments):
        yield f"run {run.info.run_id}", json.dumps(run.to_dictionary(), default=str).encode()
    yield from ((f"logged model {one.model_id}", _json(one)) for one in _logged_models(client, experiments))
    for model in _every(client.search_registered_models):
        yield f"model {model.name}", _json(model)
        for one in _every(client.search_model_versions, filter_string=f"name = '{model.name}'"):
            yield f"model {model.name}, version {one.version}", _json(one)


def artefacts(uri: str) -> Iterator[tuple[str, Path | None]]:
    """(address, a file with its bytes) of each artefact of a run or logged model; None where it cannot be read.

    The file is there until the next one is asked for.
    """
    client = Tracking(uri).client
    experiments = _every(client.search_experiments, view_type=ViewType.ALL)
    roots = [str(run.info.artifact_uri) for run in _runs(client, experiments)]
    roots += [str(one.artifact_location) for one in _logged_models(client, experiments)]
    for root in dict.fromkeys(roots):
        yield from _under(uri, root)


def _under(uri: str, folder: str) -> Iterator[tuple[str, Path | None]]:
    try:
        listed = mlflow.artifacts.list_artifacts(artifact_uri=folder, tracking_uri=uri)
    except (MlflowException, OSError):
        yield folder, None
        return
    for one in listed:
        address = f"{folder.rstrip('/')}/{one.path.rpartition('/')[2]}"
        if one.is_dir:
            yield from _under(uri, address)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                got = mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=scratch, tracking_uri=uri)
            except (MlflowException, OSError):
                yield address, None
                continue
            yield address, Path(got)


def _runs(client: MlflowClient, experiments: Sequence[Any]) -> list[Any]:
    ids = [one.experiment_id for one in experiments]
    return _every(client.search_runs, experiment_ids=ids, run_view_type=ViewType.ALL) if ids else []


def _logged_models(client: MlflowClient, experiments: Sequence[Any]) -> list[Any]:
    ids = [one.experiment_id for one in experiments if one.lifecycle_stage == "active"]
    return _every(client.search_logged_models, experiment_ids=ids) if ids else []


def _every(search: Callable[..., Any], **asked: Any) -> list[Any]:
    """All pages of a search."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(max_results=_PAGE, page_token=token, **asked)
        found += page
        token = page.token
        if not token:
            return found


def _json(one: Any) -> bytes:
    return json.dumps(dict(one), default=_plain).encode()


def _plain(value: Any) -> Any:
    return {name.lstrip("_"): one for name, one in vars(value).items()} if hasattr(value, "__dict__") else str(value)
