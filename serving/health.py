"""Is the service alive, can it answer, and how does it do: for those who watch it, not for its callers."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from serving.errors import StoreUnavailableError
from serving.fallback import PopularTitles
from serving.hosting.client import ModelClient
from serving.online_store import OnlineStore
from serving.store_reader import StoreReader, read_as_of_ms
from serving.watch.scrape import CONTENT_TYPE, Replicas

MODELS_WITHIN_S = 1.0


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What the process can answer with."""

    status: Literal["ready", "degraded", "not ready"] = Field(
        description="degraded: the store cannot be read, but popular titles are known"
    )
    detail: str | None = Field(default=None, description="what is missing")
    models: dict[str, str | None] = Field(
        default={},
        description="the version of each model that answers; null: none is loaded, and its fallback answers",
        examples=[{"recommendation": "3", "churn": None}],
    )


class Condition:
    """What a process knows of the store and of the models."""

    def __init__(self, store: StoreReader, popular: PopularTitles, models: ModelClient) -> None:
        self._store = store
        self._popular = popular
        self._models = models

    async def readiness(self) -> Readiness:
        """Whether there is something to answer with, and which models do."""
        store, models = await asyncio.gather(self._problem_of_store(), self._champions())
        if store is not None:
            return Readiness(status="degraded" if self._popular.is_known else "not ready", detail=store, models=models)
        missing = [model for model, version in models.items() if version is None]
        # There are answers without them, so nobody is sent elsewhere for it.
        return Readiness(
            status="ready", detail=f"no model is loaded for {', '.join(missing)}" if missing else None, models=models
        )

    async def _problem_of_store(self) -> str | None:
        try:
            await self._store.read(self._try)
        except StoreUnavailableError as error:
            return str(error)
        return None

    async def _champions(self) -> dict[str, str | None]:
        return {
            standing.model: next((one.version for one in standing.versions if one.alias == "champion"), None)
            for standing in await self._models.standing(MODELS_WITHIN_S)
        }

    async def learn(self) -> None:
        """Read what is answered while the store cannot be read; now and then, while it can."""
        with suppress(StoreUnavailableError):
            await self._store.read(self._try)

    def _try(self, store: OnlineStore) -> None:
        read_as_of_ms(store, "watermark")
        self._popular.read(store, "all", 1)


def health_routes(condition: Condition, replicas: Replicas) -> APIRouter:
    """The endpoints, which ask no token: they say nothing of anybody."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive?")
    async def health() -> Health:
        return Health()

    @router.get(
        "/readyz", summary="Can it answer?", responses={int(HTTPStatus.SERVICE_UNAVAILABLE): {"model": Readiness}}
    )
    async def readiness() -> JSONResponse:
        """503 only while there is nothing at all to answer with: a degraded answer beats none."""
        ready = await condition.readiness()
        is_down = ready.status == "not ready"
        status = HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.OK
        return JSONResponse(ready.model_dump(), status_code=status)

    @router.get("/metrics", summary="Metrics of all replicas, for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """The text that Prometheus scrapes: samples of every replica, told apart by the label `replica`."""
        return Response(await asyncio.to_thread(replicas.text), media_type=CONTENT_TYPE)

    return router
