"""`/v1/models`: what is served, in which version, since when, and what for."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from features.purposes import Purpose
from serving import feature_values as online
from serving.access import Access
from serving.hosting.client import ModelClient
from serving.hosting.questions import Arm, ServedVersion, Standing
from serving.prediction_log import PredictionLog
from serving.problems import responses, unknown_name
from serving.served_models import SERVED, ServedModel
from serving.settings import ServingSettings
from serving.tokens import Scope


class Version(BaseModel):
    """A version that is loaded."""

    alias: Arm = Field(description="challenger: tried in an experiment")
    version: str = Field(examples=["3"])
    trained_at: datetime | None = Field(description="when it was registered, at the end of its training (UTC)")
    since: datetime | None = Field(description="since when this service has it (UTC)")
    parts: dict[str, str] = Field(description="of an assembled model, the versions that it is made of")


class Served(BaseModel):
    """A model, and which of its versions answer."""

    name: str = Field(examples=["churn"])
    about: str = Field(description="what it says", examples=["how likely an account is to cancel within 30 days"])
    purpose: Purpose | None = Field(description="what people asked about must allow; null: it is about nobody")
    endpoint: str = Field(examples=["/v1/churn"])
    scope: Scope
    fallback: str = Field(description="what is answered while the model cannot")
    versions: list[Version] = Field(description="none: the fallback answers")
    problems: dict[Arm, str] = Field(description="by alias, what keeps it from being followed; what is loaded goes on")
    experiment: str | None = Field(description="the experiment in which the challenger is tried")
    card: str = Field(description="address of the model card", examples=["/v1/models/churn"])


class PredictionCounts(BaseModel):
    """Rows of the prediction log, of the process that answers, since it started."""

    written: int
    not_allowed: int = Field(description="of people who are not to be logged")
    dropped: int = Field(description="for want of room, of a disk, or of a store that says who allows it")


class ServedModels(BaseModel):
    """All models."""

    models: list[Served]
    predictions: PredictionCounts | None = Field(description="null: nothing is logged")


class ServedCard(Served):
    """One model, with the champion's card."""

    text: str | None = Field(description="the model card (Markdown); null while no champion is loaded")


@dataclass(frozen=True)
class Models:
    """Asks the processes that run models what they have."""

    client: ModelClient
    log: PredictionLog | None
    settings: ServingSettings

    async def all(self) -> ServedModels:
        """Every model that can be asked over HTTP."""
        standing = await self._standing()
        counts = None if self.log is None else PredictionCounts(**vars(self.log.counts))
        return ServedModels(
            models=[self._served(one, standing[one.name]) for one in SERVED.values()], predictions=counts
        )

    async def one(self, name: str) -> ServedCard:
        """One of them. Raises ProblemError for another name."""
        if name not in SERVED:
            raise unknown_name("model", name, SERVED, HTTPStatus.NOT_FOUND)
        standing = (await self._standing())[name]
        card = next((one.card for one in standing.versions if one.alias == "champion"), None)
        return ServedCard(**self._served(SERVED[name], standing).model_dump(), text=card)

    async def _standing(self) -> dict[str, Standing]:
        known = {one.model: one for one in await self.client.standing(self.settings.deadline_ms / 1000)}
        absent: dict[Arm, str] = {"champion": "it is not among the models that this service runs"}
        return {name: known.get(name, Standing(name, [], absent)) for name in SERVED}

    def _served(self, model: ServedModel, standing: Standing) -> Served:
        experiments = (name for name, one in self.settings.experiments.items() if one.model == model.name)
        return Served(
            name=model.name,
            about=model.about,
            purpose=model.purpose,
            endpoint=model.endpoint,
            scope=model.scope,
            fallback=model.fallback,
            versions=[_version(one) for one in standing.versions],
            problems=dict(standing.problems),
            experiment=next(experiments, None),
            card=f"/v1/models/{model.name}",
        )


def _version(served: ServedVersion) -> Version:
    return Version(
        alias=served.alias,
        version=served.version,
        trained_at=online.iso_instant(served.trained_at_ms),
        since=online.iso_instant(served.since_ms),
        parts=dict(served.parts),
    )


def model_routes(models: Models, access: Access) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["models"], dependencies=access.to(Scope.MODELS), responses=responses(*access.problems))

    @router.get("/v1/models", summary="What is served")
    async def all_models() -> ServedModels:
        """Every model: which version answers, since when, what for, and what is answered while none does."""
        return await models.all()

    @router.get(
        "/v1/models/{name}",
        summary="One model, with its card",
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def one_model(name: Annotated[str, Path(max_length=100, examples=["churn"])]) -> ServedCard:
        """The card says what the champion learnt from, how good it is and for whom, and what not to use it for."""
        return await models.one(name)

    return router
