"""The Serve application: an ingress that answers HTTP, and the models behind it.

request -> HAProxy -> ingress: watch, then FastAPI (features_api, recommendations, churn_api, …) or rpc (gRPC)
                        ingress -> online store
                        ingress -> models (batches) -> MLflow
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle

from serving import api_page, garbage, problems
from serving.access import Access
from serving.anomalies_api import Detecting, anomaly_routes
from serving.body_limit import BodyLimit
from serving.cdn_api import Routing, cdn_routes
from serving.churn_api import ChurnScoring, churn_routes
from serving.consent_gate import ConsentGate
from serving.experiments import Experiments
from serving.fallback import PopularTitles
from serving.feast_api import feast_routes
from serving.feature_log import FeatureLog
from serving.feature_lookup import FeatureLookup
from serving.features_api import feature_routes
from serving.health import Condition, health_routes
from serving.hosting.client import ModelClient
from serving.hosting.host import ModelHost
from serving.models_api import Models, model_routes
from serving.online_store import open_online_store
from serving.predicting import Predicting
from serving.prediction_log import PredictionLog
from serving.recommendations import Recommending, recommendation_routes
from serving.rpc.features_pb2 import LookUpRequest, LookUpResponse
from serving.rpc.look_up import FeatureRpc
from serving.settings import Model, ServingSettings, read_salts
from serving.store_reader import StoreReader
from serving.watch import description, log, measures, scrape, trace
from serving.watch.middleware import WatchRequests
from serving.watch.request import Watcher

NAME, INGRESS = "reel", "ingress"
GRPC_SERVICER = "serving.rpc.features_pb2_grpc.add_FeaturesServicer_to_server"
# Requests a model's process works on at once; further ones wait in front of it, at most so many.
CONCURRENT_REQUESTS = 256
QUEUED_REQUESTS = 1024
# More than are worked on come as far as the ingress process, which turns them away in words of its own.
TURNED_AWAY_AT_ONCE = 256
# A model's process mostly waits for questions; all of them and the ingress fit on one processor.
MODEL_CPUS, INGRESS_CPUS = 0.1, 0.5
# A roll-out starts new processes before it stops the old ones, of which there may be one only.
MAX_SURGE_PERCENT = 100
_DESCRIPTION = """Features, recommendations and scores of a streaming-TV platform, as of now.

Ids of people are plain ids; they are hashed here and never stored or logged. Nothing personal is read for a child's
profile, or without the consent that the purpose needs; the answer's `reason` says so. While a part of the service
is down, answers are `degraded` and say why; they are not errors. Errors are problem details (RFC 9457).

Every answer has `X-Trace-Id`: the trace of `traceparent` (or of `trace_id`, as messages in Kafka have it), else a new
one. A caller who waits less long than the service would says so in `X-Request-Timeout-Ms`. 429 and 503 say in
`Retry-After` when to ask again."""


class Ingress:
    """One process that answers HTTP. Serve makes it, then asks it for its ASGI application."""

    def __init__(self, settings: ServingSettings, models: "Mapping[str, DeploymentHandle[Any]]") -> None:
        self._settings = settings
        self._pseudonymizer = read_salts(settings)
        self._store = StoreReader(settings.online_store_url, settings.store_budget_ms)
        self._popular = PopularTitles(settings.popular_refresh_s, settings.max_k)
        self._log, self._features_served = _prediction_log(settings), _feature_log(settings)
        self._predicting = Predicting(
            ModelClient(models),
            Experiments(settings.experiments),
            self._log,
            settings.predictions.share if settings.predictions is not None else 0.0,
            settings.deadline_ms / 1000,
        )
        self._lookup = FeatureLookup(self._store, self._pseudonymizer, settings, self._features_served)
        self._access = Access(settings)
        self._condition = Condition(self._store, self._popular, self._predicting.client)
        self._watcher = Watcher(settings)
        self._over_grpc = FeatureRpc(self._lookup, settings, self._access, self._watcher)
        self._replicas = scrape.Replicas(NAME, serve.get_replica_context().replica_id.unique_id, measures.REGISTRY)
        log.install()
        trace.export_to(settings.traces_url)
        self._replicas.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = FastAPI(
            title="Reel",
            version="1",
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            lifespan=self._closing_the_logs,
        )
        api.add_middleware(BodyLimit, max_bytes=self._settings.max_body_bytes)
        api.add_middleware(WatchRequests, watcher=self._watcher)  # the last one added is the outermost
        problems.install(api)
        description.install(api)
        api_page.install(api)
        lookup, access = self._lookup, self._access
        recommending = Recommending(self._store, self._predicting, self._popular, self._pseudonymizer, self._settings)
        api.include_router(feature_routes(lookup, self._settings, access))
        api.include_router(feast_routes(lookup, self._settings, access))
        api.include_router(recommendation_routes(recommending, self._settings, access))
        self._add_models(api, lookup, access)
        api.include_router(health_routes(self._condition, self._replicas))
        garbage.keep_all()
        return api

    @asynccontextmanager
    async def _closing_the_logs(self, api: FastAPI) -> AsyncIterator[None]:
        """When the process is to end, what waits for the logs is written."""
        yield
        for one in (self._log, self._features_served):
            if one is not None:
                await asyncio.to_thread(one.close)

    def _add_models(self, api: FastAPI, lookup: FeatureLookup, access: Access) -> None:
        settings, predicting = self._settings, self._predicting
        gate = ConsentGate(self._pseudonymizer)
        scoring = ChurnScoring(self._store, lookup, gate, predicting, settings.churn_bands, settings.deadline_ms)
        api.include_router(churn_routes(scoring, settings, access))
        api.include_router(cdn_routes(Routing(self._store, predicting, self._pseudonymizer, settings), access))
        api.include_router(anomaly_routes(Detecting(predicting, self._store, settings.deadline_ms), access))
        api.include_router(model_routes(Models(predicting.client, self._log, settings), access))

    async def check_health(self) -> None:
        """Serve's look at the process, at its start and every 10 s; it is well also without the store."""
        await self._condition.learn()

    async def LookUp(self, request: LookUpRequest, grpc_context: RayServegRPCContext) -> LookUpResponse:
        """The call of `rpc/features.proto`; Serve finds it by its name."""
        return await self._over_grpc.look_up(request, grpc_context)


def _prediction_log(settings: ServingSettings) -> PredictionLog | None:
    if settings.predictions is None:
        return None
    # A connection of its own, with time enough: nobody waits for the log.
    return PredictionLog(settings.predictions, lambda: open_online_store(settings.online_store_url, readonly=True))


def _feature_log(settings: ServingSettings) -> FeatureLog | None:
    chosen = settings.served_features
    if chosen is None:
        return None
    return FeatureLog(chosen, lambda: open_online_store(settings.online_store_url, readonly=True))


def deployments(settings: ServingSettings) -> dict[str, dict[str, Any]]:
    """The processes of the application: options by name of what answers HTTP and of what runs models."""
    options: dict[str, dict[str, Any]] = {
        INGRESS: {
            "num_replicas": settings.replicas,
            "max_ongoing_requests": settings.max_in_flight + TURNED_AWAY_AT_ONCE,
            "max_surge_percent": MAX_SURGE_PERCENT,
            "ray_actor_options": {"num_cpus": INGRESS_CPUS},
        }
    }
    for name, models in _hosts(settings).items():
        options[name] = {
            # One process judges delivery networks, for it has to hear of all sessions to tell a fall from chance.
            "num_replicas": 1 if models == ("cdn",) else settings.model_replicas,
            "max_ongoing_requests": CONCURRENT_REQUESTS,
            "max_queued_requests": QUEUED_REQUESTS,
            "max_surge_percent": MAX_SURGE_PERCENT,
            "ray_actor_options": {"num_cpus": MODEL_CPUS},
        }
    return options


def build(settings: ServingSettings) -> Application:
    """The application, ready for `serve.run`."""
    options = deployments(settings)
    hosts: dict[str, Application] = {}
    for name, models in _hosts(settings).items():
        host = serve.deployment(name=name, **options[name])
        hosts |= dict.fromkeys(models, host(ModelHost).bind(settings, models))
    ingress = serve.deployment(name=INGRESS, **options[INGRESS])
    return ingress(serve.ingress()(Ingress)).bind(settings, hosts)


def _hosts(settings: ServingSettings) -> dict[str, tuple[Model, ...]]:
    """Deployments that run models, and which each runs."""
    if settings.model_processes == "one":
        return {"models": settings.models}
    return {f"model_{model}": (model,) for model in settings.models}
