"""The champion model, in a process of its own: found by alias in MLflow, and followed when the alias moves.

A deployment of its own, not a thread of the ingress, so that torch takes neither the ingress's memory nor its
interpreter lock, scales (or moves to a GPU) by itself, and feature look-ups go on while a model is loaded. Requests
that arrive while one batch is computed make up the next, so that nobody waits for a batch to fill.
"""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from models.errors import ModelError
from models.recommendation.recommender import VOCABULARY_FILE, Recommender
from serving.errors import ModelSlowError, ModelUnavailableError
from serving.settings import ServingSettings
from serving.watch import trace

MAX_BATCH = 64
VERSION_WITHIN_S = 2.0
# What MLflow says of a model, or of an alias, that is not there.
_MISSING = {ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE)}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """One viewer's finished titles, oldest first, and how many more to name."""

    history: Sequence[str]
    k: int


@dataclass(frozen=True)
class Ranking:
    """(content id, probability) pairs, best first, and which version of the model said so."""

    scored: list[tuple[str, float]]
    model_version: str


@dataclass(frozen=True)
class Unavailable:
    """No model is loaded, and why."""

    problem: str


class _WithdrawnError(ModelUnavailableError):
    """No version has the alias."""


@dataclass(frozen=True)
class _Loaded:
    version: str
    recommender: Recommender


class Champion:
    """The version that the alias names, loaded; the one before goes on answering until the next is loaded."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        # Of this whole process, which has no other registry: artifacts of `models:/` addresses are found by it.
        mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
        mlflow.set_registry_uri(settings.mlflow_tracking_uri)
        self._loaded: _Loaded | None = None
        self._problem = "not loaded yet"

    def refresh(self) -> None:
        """Look the alias up and load its version if it is another one.

        A registry that cannot be reached, or a version that cannot be loaded, leaves the loaded one in service; an
        alias that is gone was withdrawn on purpose, and ends it.
        """
        try:
            version = self._version()
            if self._loaded is None or self._loaded.version != version:
                self._loaded = _Loaded(version, self._load(version))
                _log.info("champion is %s version %s", self._settings.model_name, version)
        except _WithdrawnError as error:
            self._loaded = None
            self._problem = str(error)
        except (MlflowException, ModelError, OSError) as error:
            self._problem = str(error)
            _log.warning("champion not refreshed: %s", error)

    def rank(self, asked: Sequence[Asked]) -> list[Ranking | Unavailable]:
        """The titles each is likeliest to finish next, none of them among those finished."""
        loaded = self._loaded
        if loaded is None:
            return [Unavailable(self._problem)] * len(asked)
        ranked = loaded.recommender.recommend([one.history for one in asked], max(one.k for one in asked))
        return [Ranking(scored[: one.k], loaded.version) for one, scored in zip(asked, ranked, strict=True)]

    def _version(self) -> str:
        uri = self._settings.mlflow_tracking_uri
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            # MLflow would make an empty database there.
            raise FileNotFoundError(f"no MLflow database at {uri}")
        name, alias = self._settings.model_name, self._settings.model_alias
        try:
            return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in _MISSING:
                raise _WithdrawnError(f"no model {name!r} has the alias {alias!r}: {error}") from None
            raise

    def _load(self, version: str) -> Recommender:
        with tempfile.TemporaryDirectory(prefix="reel-model-") as folder:
            uri = f"models:/{self._settings.model_name}/{version}"
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            vocabulary = next(Path(folder).rglob(VOCABULARY_FILE), None)
            if vocabulary is None:
                raise FileNotFoundError(f"{uri} holds no recommender: no {VOCABULARY_FILE} in it")
            recommender = Recommender.load(vocabulary.parent)
        recommender.recommend([[]], 1)  # the first pass through torch is slow; no request should pay for it
        return recommender


class ChampionDeployment:
    """Serve's replica around a Champion: batches requests, and follows the alias from a thread."""

    def __init__(self, settings: ServingSettings) -> None:
        self._champion = Champion(settings)
        self._refresh_s = settings.model_refresh_s
        self._champion.refresh()
        threading.Thread(target=self._follow, name="champion", daemon=True).start()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def rank(self, asked: list[Asked]) -> list[Ranking | Unavailable]:
        """See Champion.rank; one answer per caller."""
        return await asyncio.to_thread(self._champion.rank, asked)

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._refresh_s):
            try:
                self._champion.refresh()
            except Exception:  # noqa: BLE001 - whatever it was, the next look at the alias may succeed
                _log.exception("champion not refreshed")


class ChampionClient:
    """The ingress's way to the champion."""

    def __init__(self, handle: "DeploymentHandle[Any]") -> None:
        self._handle = handle

    async def version(self) -> str:
        """The version that answers now. Raises as `rank` does."""
        return (await self.rank([], 1, VERSION_WITHIN_S)).model_version

    async def rank(self, history: Sequence[str], k: int, timeout_s: float) -> Ranking:
        """Raises ModelSlowError after `timeout_s`, ModelUnavailableError if there is no model or no replica."""
        try:
            with trace.span("model"):
                async with asyncio.timeout(timeout_s):
                    answer = await self._handle.rank.remote(Asked(history, k))
        except TimeoutError:
            raise ModelSlowError(f"the champion took more than {timeout_s * 1000:.0f} ms") from None
        except BackPressureError:
            raise ModelSlowError("the champion has more requests waiting than it may have") from None
        except (RayError, RayServeException) as error:
            raise ModelUnavailableError(f"the champion's process failed: {error}") from None
        if isinstance(answer, Unavailable):
            raise ModelUnavailableError(answer.problem)
        assert isinstance(answer, Ranking)
        return answer
