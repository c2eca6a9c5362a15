"""The Serve application: an ingress that answers HTTP, and the models behind it.

request -> HAProxy -> ingress (FastAPI: features_api, feast_api, recommendations, churn_api, …) -> online store
                                                                                   \\-> models (batches) -> MLflow
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serving import api_page, problems
from serving.access import Access
from serving.anomalies_api import Detecting, anomaly_routes
from serving.body_limit import BodyLimit
from serving.cdn_api import Routing, cdn_routes
from serving.churn_api import ChurnScoring, churn_routes
from serving.consent_gate import ConsentGate
from serving.errors import StoreUnavailableError
from serving.experiments import Experiments
from serving.fallback import PopularTitles
from serving.feast_api import feast_routes
from serving.features_api import FeatureLookup, feature_routes
from serving.hosting.client import ModelClient
from serving.hosting.host import ModelHost
from serving.models_api import Models, model_routes
from serving.online_store import OnlineStore, open_online_store
from serving.predicting import Predicting
from serving.prediction_log import PredictionLog
from serving.recommendations import Recommending, recommendation_routes
from serving.settings import ServingSettings, read_salts
from serving.store_reader import StoreReader, read_as_of_ms

NAME = "reel"
# Requests one ingress process works on at once; further ones wait in front of it.
CONCURRENT_REQUESTS = 256
# A model's process mostly waits for questions; all of them and the ingress fit on one processor.
MODEL_CPUS = 0.1
_DESCRIPTION = """Features, recommendations and scores of a streaming-TV platform, as of now.

Ids of people are plain ids; they are hashed here and never stored or logged. Nothing personal is read for a child's
profile, or without the consent that the purpose needs; the answer's `reason` says so. While a part of the service
is down, answers are `degraded` and say why; they are not errors. Errors are problem details (RFC 9457)."""


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What the process can answer with."""

    status: Literal["ready", "degraded", "not ready"] = Field(
        description="degraded: the store cannot be read, but popular titles are known"
    )
    detail: str | None = Field(default=None, description="what is missing")


class Ingress:
    """One process that answers HTTP. Serve makes it, then asks it for its ASGI application."""

    def __init__(self, settings: ServingSettings, models: "Mapping[str, DeploymentHandle[Any]]") -> None:
        self._settings = settings
        self._pseudonymizer = read_salts(settings)
        self._store = StoreReader(settings.online_store_url, settings.store_budget_ms)
        self._popular = PopularTitles(settings.popular_refresh_s, settings.max_k)
        self._log = _prediction_log(settings)
        self._predicting = Predicting(
            ModelClient(models),
            Experiments(settings.experiments),
            self._log,
            settings.predictions.share if settings.predictions is not None else 0.0,
            settings.deadline_ms / 1000,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = FastAPI(
            title="Reel",
            version="1",
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            lifespan=self._closing_the_log,
        )
        api.add_middleware(BodyLimit, max_bytes=self._settings.max_body_bytes)
        problems.install(api)
        api_page.install(api)
        lookup = FeatureLookup(self._store, self._pseudonymizer, self._settings)
        recommending = Recommending(self._store, self._predicting, self._popular, self._pseudonymizer, self._settings)
        access = Access(self._settings)
        api.include_router(feature_routes(lookup, self._settings, access))
        api.include_router(feast_routes(lookup, self._settings, access))
        api.include_router(recommendation_routes(recommending, self._settings, access))
        self._add_models(api, lookup, access)
        self._add_health(api)
        return api

    @asynccontextmanager
    async def _closing_the_log(self, api: FastAPI) -> AsyncIterator[None]:
        """When the process is to end, what waits for the log is written."""
        yield
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    def _add_models(self, api: FastAPI, lookup: FeatureLookup, access: Access) -> None:
        settings, predicting = self._settings, self._predicting
        gate = ConsentGate(self._pseudonymizer)
        scoring = ChurnScoring(self._store, lookup, gate, predicting, settings.churn_bands, settings.deadline_ms)
        api.include_router(churn_routes(scoring, settings, access))
        api.include_router(cdn_routes(Routing(self._store, predicting, self._pseudonymizer, settings), access))
        api.include_router(anomaly_routes(Detecting(predicting, settings.deadline_ms), access))
        api.include_router(model_routes(Models(predicting.client, self._log, settings), access))

    def _add_health(self, api: FastAPI) -> None:
        @api.get("/healthz", tags=["health"], summary="Is the process alive?")
        async def health() -> Health:
            return Health()

        @api.get(
            "/readyz",
            tags=["health"],
            summary="Can it answer?",
            responses={int(HTTPStatus.SERVICE_UNAVAILABLE): {"model": Readiness}},
        )
        async def readiness() -> JSONResponse:
            """503 only while there is nothing at all to answer with: a degraded answer beats none."""
            ready = await self._readiness()
            is_down = ready.status == "not ready"
            status = HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.OK
            return JSONResponse(ready.model_dump(), status_code=status)

    async def _readiness(self) -> Readiness:
        try:
            await self._store.read(self._try_store)
        except StoreUnavailableError as error:
            return Readiness(status="degraded" if self._popular.is_known else "not ready", detail=str(error))
        return Readiness(status="ready")

    def _try_store(self, store: OnlineStore) -> None:
        read_as_of_ms(store, "watermark")
        self._popular.read(store, "all", 1)


def _prediction_log(settings: ServingSettings) -> PredictionLog | None:
    if settings.predictions is None:
        return None
    # A connection of its own, with time enough: nobody waits for the log.
    return PredictionLog(settings.predictions, lambda: open_online_store(settings.online_store_url, readonly=True))


def build(settings: ServingSettings) -> Application:
    """The application, ready for `serve.run`."""
    options: dict[str, Any] = {"max_ongoing_requests": CONCURRENT_REQUESTS}
    ingress = serve.deployment(
        name="ingress", num_replicas=settings.replicas, ray_actor_options={"num_cpus": 0.5}, **options
    )
    together = [settings.models] if settings.model_processes == "one" else [(model,) for model in settings.models]
    hosts: dict[str, Application] = {}
    for models in together:
        host = serve.deployment(
            name="models" if settings.model_processes == "one" else f"model_{models[0]}",
            # One process judges delivery networks, for it has to hear of all sessions to tell a fall from chance.
            num_replicas=1 if models == ("cdn",) else settings.model_replicas,
            ray_actor_options={"num_cpus": MODEL_CPUS},
            **options,
        )
        hosts |= dict.fromkeys(models, host(ModelHost).bind(settings, models))
    return ingress(serve.ingress()(Ingress)).bind(settings, hosts)
