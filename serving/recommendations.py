"""`/v1/recommendations`: what a viewer is likely to finish next; else what most people watch, and why.

1. the consent gate          a child, an unknown viewer, a refusal: popular titles, nothing personal is read
2. recent titles             none: popular titles
3. the cascade               not published: the champion `recommendation` alone; failed: the same, and `degraded`
                             neither can, or too slow for the deadline: popular titles
4. names and genres          from the catalogue in the online store

The log keeps `{"titles", "scores"}`, best first.
"""

import asyncio
from dataclasses import replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from features.pseudonyms import Pseudonymizer
from models.ranker.features import RECENT_TITLES
from serving import feature_values as online
from serving.access import Access
from serving.consent_gate import ConsentGate, Person
from serving.errors import ModelSlowError, ModelUnavailableError, NoVersionError, StoreUnavailableError
from serving.fallback import (
    Audience,
    PopularTitles,
    RecommendedTitle,
    with_titles,
    without_titles,
)
from serving.hosting.questions import Ranked, Titles
from serving.parameters import Id, Market
from serving.predicting import ExperimentArm, Logged, Predicted, Predicting
from serving.problems import ProblemError, responses
from serving.query_route import QueryRoute
from serving.reasons import Reason
from serving.settings import ServingSettings
from serving.store_reader import StoreReader
from serving.tokens import Scope
from serving.viewers import HISTORY, SELECTIONS, Viewers
from serving.watch import deadline

CASCADE, RECOMMENDER = "cascade", "recommendation"
LOOK_AGAIN_S = 1.0
"""How long it is remembered that there is no cascade, rather than asked for in vain."""


class Recommendations(BaseModel):
    """Titles for a viewer, and where they come from."""

    items: list[RecommendedTitle] = Field(description="best first")
    source: Literal["model", "popular"]
    reason: Reason | None = Field(
        description="why popular titles were answered, or the model `recommendation` although there is a cascade"
    )
    degraded: bool = Field(description="true if that is because something failed")
    audience: Audience = Field(description="kids: only titles rated for children")
    model: str | None = Field(description="the registered model that answered", examples=["cascade", "recommendation"])
    model_version: str | None = Field(examples=["3"])
    parts: dict[str, str] = Field(
        default={},
        description="of a cascade, the versions that it was put together of",
        examples=[{"retrieval": "recommendation 3", "content": "content 1", "ranker": "ranker 2"}],
    )
    done_without: list[str] = Field(default=[], description="what the cascade had to do without")
    experiment: ExperimentArm | None = Field(default=None, description="the experiment that the viewer is in")
    as_of: datetime | None = Field(description="the instant the viewer's history was read at (UTC)")


class Recommending:
    """Answers one request from the store, the models and the popular titles."""

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
        self._viewers = Viewers(self._gate, pseudonymizer, settings.as_of)
        self._deadline_ms = settings.deadline_ms
        self._no_cascade_until_s = 0.0

    async def answer(self, viewer: Person, session_id: str | None, k: int, market: str | None) -> Recommendations:
        """The answer; a failure of the store or of a model is one with a reason."""
        deadline_s = self._now_s() + deadline.shortened(self._deadline_ms / 1000)
        names = list(SELECTIONS) if self._may_have_cascade() else [HISTORY]
        try:
            found = await self._store.read(
                partial(self._viewers.look_up, viewer, session_id, market, names), is_short=True
            )
        except StoreUnavailableError as error:
            # Nobody can say now whether it is a child who asks.
            return self._popular_answer(Reason.of(error), "kids", self._popular.remembered("kids", k), None)
        if found.refusal is not None:
            audience: Audience = "kids" if found.refusal is Reason.KIDS_PROFILE else "all"
            return await self._most_watched(found.refusal, audience, k, found.as_of_ms)
        try:
            features = await asyncio.to_thread(found.features)
            history = features.get(RECENT_TITLES)
            if not history:
                return await self._most_watched(Reason.NO_HISTORY, "all", k, found.as_of_ms)
            unit = self._pseudonymizer.hash(viewer.profile_id or viewer.user_id or "")
            predicted, reason = await self._ask(unit, Titles(history, k, features), deadline_s)
        except (StoreUnavailableError, ModelUnavailableError) as error:
            return await self._most_watched(Reason.of(error), "all", k, found.as_of_ms)
        self._predicting.record(predicted, found.as_of_ms, partial(self._logged, viewer))
        return await self._from_model(predicted, reason, found.as_of_ms)

    async def _ask(self, unit: str, titles: Titles, deadline_s: float) -> tuple[Predicted, Reason | None]:
        """The cascade's answer; where it has none, the recommender's alone, and why if something failed.

        Raises ModelUnavailableError if neither answers, ModelSlowError if there is no time left to ask another.
        """
        reason = None
        if self._may_have_cascade():
            try:
                return await self._predicting.ask(CASCADE, unit, titles, deadline_s - self._now_s()), None
            except NoVersionError:
                self._no_cascade_until_s = self._now_s() + LOOK_AGAIN_S
            except ModelSlowError:
                raise
            except ModelUnavailableError as error:
                reason = Reason.of(error)
        alone = replace(titles, features={})
        return await self._predicting.ask(RECOMMENDER, unit, alone, deadline_s - self._now_s()), reason

    def _may_have_cascade(self) -> bool:
        return self._now_s() >= self._no_cascade_until_s

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _logged(self, viewer: Person, ranked: Ranked) -> list[Logged]:
        titles, scores = [name for name, _ in ranked.titles], [score for _, score in ranked.titles]
        return [Logged({"titles": titles, "scores": scores}, self._gate.hashes(viewer))]

    async def _most_watched(self, reason: Reason, audience: Audience, k: int, as_of_ms: int | None) -> Recommendations:
        try:
            items = await self._store.read(lambda store: self._popular.read(store, audience, k), is_short=True)
        except StoreUnavailableError:
            items = self._popular.remembered(audience, k)
        return self._popular_answer(reason, audience, items, as_of_ms)

    async def _from_model(self, predicted: Predicted, reason: Reason | None, as_of_ms: int | None) -> Recommendations:
        ranked: Ranked = predicted.answer
        try:
            items = await self._store.read(lambda store: with_titles(store, ranked.titles), is_short=True)
        except StoreUnavailableError:
            items = without_titles(ranked.titles)  # the ids are the answer; names are missing from it
        return Recommendations(
            items=items,
            source="model",
            reason=reason,
            degraded=reason is not None,
            audience="all",
            model=predicted.model,
            model_version=predicted.given.version,
            parts=dict(predicted.given.parts),
            done_without=list(ranked.done_without),
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
        route_class=QueryRoute,
        tags=["recommendations"],
        dependencies=access.to(Scope.RECOMMENDATIONS),
        responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.get("/v1/recommendations", summary="Titles a viewer is likely to finish next")
    async def recommendations(
        profile_id: Annotated[Id, Query(examples=["profile-17"])],
        user_id: Id | None = None,
        session_id: Annotated[
            Id | None, Query(description="the viewer's session, for what the moment says to a cascade")
        ] = None,
        k: Annotated[int, Query(description="how many titles", examples=[10])] = 10,
        market: Market = None,
    ) -> Recommendations:
        """Plain ids; user_id may be left out, the profile's owner is known.

        There is always an answer: popular titles with a `reason` if the viewer is unknown, a child, has watched
        nothing yet or does not allow personalization, and also while a part of the service is down.
        """
        if not 1 <= k <= settings.max_k:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"k must be 1 to {settings.max_k}; received {k}")
        return await recommending.answer(Person(user_id=user_id, profile_id=profile_id), session_id, k, market)

    return router
