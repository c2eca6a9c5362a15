"""`/v1/recommendations`: what a viewer is likely to finish next; else what most people watch, and why.

1. the consent gate          a child, an unknown viewer, a refusal: popular titles, nothing personal is read
2. recent titles             none: popular titles
3. the champion model        missing, or too slow for the deadline: popular titles
4. names and genres          from the catalogue in the online store

The log keeps `{"titles", "scores"}`, best first.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving import feature_values as online
from serving.access import Access
from serving.consent_gate import ConsentGate, Person
from serving.errors import ModelUnavailableError, StoreUnavailableError
from serving.fallback import (
    Audience,
    PopularTitles,
    RecommendedTitle,
    with_titles,
    without_titles,
)
from serving.hosting.questions import Titles
from serving.online_store import OnlineStore
from serving.parameters import Id, Market
from serving.predicting import ExperimentArm, Logged, Predicted, Predicting
from serving.problems import ProblemError, responses
from serving.reasons import Reason
from serving.settings import ServingSettings
from serving.store_reader import StoreReader, read_as_of_ms
from serving.tokens import Scope
from serving.watch import deadline

MODEL = "recommendation"


class Recommendations(BaseModel):
    """Titles for a viewer, and where they come from."""

    items: list[RecommendedTitle] = Field(description="best first")
    source: Literal["model", "popular"]
    reason: Reason | None = Field(description="why popular titles were answered; null if the model answered")
    degraded: bool = Field(description="true if popular titles were answered because something failed")
    audience: Audience = Field(description="kids: only titles rated for children")
    model: str | None = Field(description="the registered model that answered", examples=["recommendation"])
    model_version: str | None = Field(examples=["3"])
    experiment: ExperimentArm | None = Field(default=None, description="the experiment that the viewer is in")
    as_of: datetime | None = Field(description="the instant the viewer's history was read at (UTC)")


@dataclass(frozen=True)
class _Found:
    """What the store says of a viewer; `packed` (the history's features) is read only without a refusal."""

    as_of_ms: int | None
    refusal: Reason | None
    packed: bytes | None


class Recommending:
    """Answers one request from the store, the model and the popular titles."""

    def __init__(
        self,
        store: StoreReader,
        predicting: Predicting,
        popular: PopularTitles,
        pseudonymizer: Pseudonymizer,
        settings: ServingSettings,
    ) -> None:
        self._store = store
        self._predicting = predicting
        self._popular = popular
        self._pseudonymizer = pseudonymizer
        self._gate = ConsentGate(pseudonymizer)
        self._settings = settings

    async def answer(self, viewer: Person, k: int, market: str | None) -> Recommendations:
        """The answer; a failure of the store or of the model is one with a reason."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + deadline.shortened(self._settings.deadline_ms / 1000)
        try:
            found = await self._store.read(partial(self._look_up, viewer, market))
        except StoreUnavailableError as error:
            # Nobody can say now whether it is a child who asks.
            return self._popular_answer(Reason.of(error), "kids", self._popular.remembered("kids", k), None)
        if found.refusal is not None:
            audience: Audience = "kids" if found.refusal is Reason.KIDS_PROFILE else "all"
            return await self._most_watched(found.refusal, audience, k, found.as_of_ms)
        try:
            history = await asyncio.to_thread(self._history, found)
            if not history:
                return await self._most_watched(Reason.NO_HISTORY, "all", k, found.as_of_ms)
            unit = self._pseudonymizer.hash(viewer.profile_id or viewer.user_id or "")
            predicted = await self._predicting.ask(MODEL, unit, Titles(history, k), deadline_s - clock())
        except (StoreUnavailableError, ModelUnavailableError) as error:
            return await self._most_watched(Reason.of(error), "all", k, found.as_of_ms)
        self._predicting.record(predicted, found.as_of_ms, partial(self._logged, viewer))
        return await self._from_model(predicted, found.as_of_ms)

    def _logged(self, viewer: Person, ranked: Sequence[tuple[str, float]]) -> list[Logged]:
        said = {"titles": [content_id for content_id, _ in ranked], "scores": [score for _, score in ranked]}
        return [Logged(said, self._gate.hashes(viewer))]

    def _look_up(self, viewer: Person, market: str | None, store: OnlineStore) -> _Found:
        as_of_ms = read_as_of_ms(store, self._settings.as_of)
        purposes = {Purpose.PERSONALIZATION, USER_VIEWING_HISTORY.purpose}
        (refusal,) = self._gate.refusals(store, [viewer], purposes, market)
        if refusal is not None or viewer.profile_id is None:
            return _Found(as_of_ms, refusal, None)
        hashes = self._pseudonymizer.candidates(viewer.profile_id)
        packed = store.get_many(USER_VIEWING_HISTORY.stored_as("profile_id"), hashes)
        return _Found(as_of_ms, None, next((value for value in packed if value is not None), None))

    def _history(self, found: _Found) -> list[str]:
        """Titles the viewer finished lately, oldest first."""
        if found.packed is None or found.as_of_ms is None:
            return []
        (valued,) = online.value(USER_VIEWING_HISTORY, [found.packed], found.as_of_ms)
        return valued.values["recent_titles"] or []

    async def _most_watched(self, reason: Reason, audience: Audience, k: int, as_of_ms: int | None) -> Recommendations:
        try:
            items = await self._store.read(lambda store: self._popular.read(store, audience, k))
        except StoreUnavailableError:
            items = self._popular.remembered(audience, k)
        return self._popular_answer(reason, audience, items, as_of_ms)

    async def _from_model(self, predicted: Predicted, as_of_ms: int | None) -> Recommendations:
        try:
            items = await self._store.read(lambda store: with_titles(store, predicted.answer))
        except StoreUnavailableError:
            items = without_titles(predicted.answer)  # the ids are the answer; names are missing from it
        return Recommendations(
            items=items,
            source="model",
            reason=None,
            degraded=False,
            audience="all",
            model=MODEL,
            model_version=predicted.given.version,
            experiment=predicted.experiment,
            as_of=online.iso_instant(as_of_ms),
        )

    def _popular_answer(
        self, reason: Reason, audience: Audience, items: list[RecommendedTitle], as_of_ms: int | None
    ) -> Recommendations:
        return Recommendations(
            items=items,
            source="popular",
            reason=reason,
            degraded=reason.is_degraded,
            audience=audience,
            model=None,
            model_version=None,
            as_of=online.iso_instant(as_of_ms),
        )


def recommendation_routes(recommending: Recommending, settings: ServingSettings, access: Access) -> APIRouter:
    """The endpoint."""
    router = APIRouter(
        tags=["recommendations"],
        dependencies=access.to(Scope.RECOMMENDATIONS),
        responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.get("/v1/recommendations", summary="Titles a viewer is likely to finish next")
    async def recommendations(
        profile_id: Annotated[Id, Query(examples=["profile-17"])],
        user_id: Id | None = None,
        k: Annotated[int, Query(description="how many titles", examples=[10])] = 10,
        market: Market = None,
    ) -> Recommendations:
        """Plain ids; user_id may be left out, the profile's owner is known.

        There is always an answer: popular titles with a `reason` if the viewer is unknown, a child, has watched
        nothing yet or does not allow personalization, and also while a part of the service is down.
        """
        if not 1 <= k <= settings.max_k:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"k must be 1 to {settings.max_k}; received {k}")
        return await recommending.answer(Person(user_id=user_id, profile_id=profile_id), k, market)

    return router
