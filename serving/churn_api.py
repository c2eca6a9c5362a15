"""`/v1/churn`: how likely accounts are to cancel within 30 days, and what drives it.

1. the consent gate          a child, an unknown user, a refusal: no score, and the reason; nothing personal is read
2. features                  those that the model declares (`models/churn/features.py`), from the online store
3. the model                 missing, or too slow for the deadline: no score either, and the answer is `degraded`

The log keeps `{"probability", "band"}` of an account.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from features.groups import GROUPS
from features.purposes import Purpose
from features.selection import Selection, select
from models.churn.features import FEATURES
from serving import feature_values as online
from serving.access import Access
from serving.consent_gate import ConsentGate, Person
from serving.errors import ModelUnavailableError, StoreUnavailableError
from serving.experiments import Assignment
from serving.feature_lookup import FeatureLookup, FeatureRow
from serving.hosting.questions import Accounts, ChurnScore
from serving.parameters import Id, Market
from serving.predicting import ExperimentArm, Logged, Predicted, Predicting
from serving.problems import ProblemError, responses
from serving.query_route import QueryRoute
from serving.reasons import Reason
from serving.settings import ChurnBands, ServingSettings
from serving.store_reader import StoreReader
from serving.tokens import Scope

MODEL = "churn"
HORIZON_DAYS = 30
SELECTIONS: tuple[Selection, ...] = tuple(select(FEATURES, ["user_id"], GROUPS))
# What is stored is of whole groups, and is read by whole declarations.
STORED = tuple(next(group for group in GROUPS if group.name == one.group.name) for one in SELECTIONS)
Band = Literal["low", "medium", "high"]


class ChurnReason(BaseModel):
    """A feature of the account that moved its probability."""

    feature: str = Field(examples=["churn_signals__viewing_hours_delta"])
    value: float | None = Field(description="null where it is not known, which can be a reason too", examples=[-6.5])
    log_odds: float = Field(
        description="its SHAP value: what it adds to the log-odds of leaving; negative: it keeps", examples=[0.41]
    )


class AccountScore(BaseModel):
    """The score of one account."""

    user_id: str = Field(description="as it was asked for", examples=["user-17"])
    probability: float | None = Field(description="of cancelling within the horizon, 0 to 1", examples=[0.23])
    band: Band | None = Field(description="where the probability lies; the bounds are the service's configuration")
    reasons: list[ChurnReason] = Field(description="what drives it, farthest first")
    reason: Reason | None = Field(description="why there is no score")
    model_version: str | None = Field(description="which version scored it", examples=["3"])
    experiment: ExperimentArm | None = Field(default=None, description="the experiment that the account is in")


class ChurnScores(BaseModel):
    """Scores in the order asked."""

    model: str = Field(default=MODEL)
    horizon_days: int = HORIZON_DAYS
    as_of: datetime | None = Field(description="the instant of the features (UTC)")
    degraded: bool = Field(description="true if something failed and scores are missing for that reason")
    scores: list[AccountScore]


class Account(BaseModel):
    """Whom a caller asks about."""

    user_id: Id = Field(examples=["user-17"])
    profile_id: Id | None = Field(default=None, description="who is watching; for a child's profile there is no score")


class ChurnQuestion(BaseModel):
    """Which accounts."""

    accounts: list[Account] = Field(min_length=1, examples=[[{"user_id": "user-17"}, {"user_id": "user-4"}]])
    market: Market = None


@dataclass(frozen=True)
class ChurnScoring:
    """Answers from the store and the model."""

    store: StoreReader
    lookup: FeatureLookup
    gate: ConsentGate
    predicting: Predicting
    bands: ChurnBands
    deadline_ms: int

    async def answer(self, people: Sequence[Person], market: str | None) -> ChurnScores:
        """The answer; a failure of the store or of the model is one with a reason."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + self.deadline_ms / 1000
        as_of_ms, rows = await self._rows(people, market)
        reasons = [_reason(of_person) for of_person in rows]
        scores = [_without_score(person, reason) for person, reason in zip(people, reasons, strict=True)]
        sides: dict[Assignment | None, list[int]] = {}
        for place, reason in enumerate(reasons):
            if reason is None:
                (unit, *_) = self.gate.hashes(people[place]).user or (None,)
                sides.setdefault(self.predicting.experiments.of(MODEL, unit), []).append(place)
        for side, places in sides.items():
            asked = [people[place] for place in places]
            question = Accounts(_columns([rows[place] for place in places]))
            try:
                predicted = await self.predicting.ask_on(side, MODEL, question, deadline_s - clock())
            except ModelUnavailableError as error:
                given = [_without_score(person, Reason.of(error)) for person in asked]
            else:
                given = [
                    self._scored(one, predicted, score) for one, score in zip(asked, predicted.answer, strict=True)
                ]
                self.predicting.record(predicted, as_of_ms, partial(self._logged, asked))
            for place, score in zip(places, given, strict=True):
                scores[place] = score
        is_degraded = any(one.reason is not None and one.reason.is_degraded for one in scores)
        return ChurnScores(as_of=online.iso_instant(as_of_ms), degraded=is_degraded, scores=scores)

    async def _rows(self, people: Sequence[Person], market: str | None) -> tuple[int | None, list[list[FeatureRow]]]:
        """The instant of the features, and for each person a row a group; a profile's refusal is on all of them."""
        users = [person.user_id or "" for person in people]
        as_of_ms, by_group = await self.lookup.rows_of(STORED, "user_id", users, Purpose.PERSONALIZATION, market)
        rows = [list(of_person) for of_person in zip(*by_group, strict=True)]
        named = [place for place, person in enumerate(people) if person.profile_id is not None]
        if named:
            asked, purposes = [people[place] for place in named], {Purpose.PERSONALIZATION}
            refusals: Sequence[Reason | None]
            try:
                refusals = await self.store.read(lambda store: self.gate.refusals(store, asked, purposes, market))
            except StoreUnavailableError as error:
                refusals = [Reason.of(error)] * len(named)
            for place, refusal in zip(named, refusals, strict=True):
                if refusal is not None:
                    rows[place] = [FeatureRow(key=users[place], found=False, values={}, reason=refusal)]
        return as_of_ms, rows

    def _scored(self, person: Person, predicted: Predicted, score: ChurnScore) -> AccountScore:
        return AccountScore(
            user_id=person.user_id or "",
            probability=score.probability,
            band=self._band(score.probability),
            reasons=[ChurnReason(feature=d.feature, value=d.value, log_odds=d.log_odds) for d in score.drivers],
            reason=None,
            model_version=predicted.given.version,
            experiment=predicted.experiment,
        )

    def _band(self, probability: float) -> Band:
        if probability < self.bands.medium:
            return "low"
        return "medium" if probability < self.bands.high else "high"

    def _logged(self, people: Sequence[Person], scores: Sequence[ChurnScore]) -> list[Logged]:
        return [
            Logged({"probability": one.probability, "band": self._band(one.probability)}, self.gate.hashes(person))
            for person, one in zip(people, scores, strict=True)
        ]


def _reason(rows: Sequence[FeatureRow]) -> Reason | None:
    """Why a person gets no score: a refusal, a failure, or that nothing is known of them."""
    reason = next((row.reason for row in rows if row.reason is not None), None)
    if reason is not None:
        return reason
    return None if any(row.found for row in rows) else Reason.NO_HISTORY


def _without_score(person: Person, reason: Reason | None) -> AccountScore:
    return AccountScore(
        user_id=person.user_id or "", probability=None, band=None, reasons=[], reason=reason, model_version=None
    )


def _columns(rows: Sequence[Sequence[FeatureRow]]) -> Mapping[str, Sequence[Any]]:
    """The model's columns, of a row a group of each person."""
    columns: dict[str, list[Any]] = {}
    for place, selection in enumerate(SELECTIONS):
        of_people = [person[place] for person in rows]
        for name, column in selection.columns.items():
            is_age = name == selection.group.age_column
            columns[column] = [row.age_ms if is_age else row.values[name] for row in of_people]
    return columns


def churn_routes(scoring: ChurnScoring, settings: ServingSettings, access: Access) -> APIRouter:
    """The endpoints."""
    router = APIRouter(
        route_class=QueryRoute,
        tags=["churn"],
        dependencies=access.to(Scope.CHURN),
        responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.get("/v1/churn", summary="How likely an account is to cancel")
    async def one_account(
        user_id: Annotated[Id, Query(examples=["user-17"])],
        profile_id: Id | None = None,
        market: Market = None,
    ) -> ChurnScores:
        """One score. An unknown user, a child or a refusal is an answer without one, and `reason` says so."""
        return await scoring.answer([Person(user_id=user_id, profile_id=profile_id)], market)

    @router.post("/v1/churn", summary="How likely accounts are to cancel")
    async def many_accounts(question: ChurnQuestion) -> ChurnScores:
        """The same for many accounts, in one look-up; scores come in the order of the accounts."""
        if len(question.accounts) > settings.max_keys:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"at most {settings.max_keys} accounts at once; received {len(question.accounts)}",
            )
        people = [Person(user_id=one.user_id, profile_id=one.profile_id) for one in question.accounts]
        return await scoring.answer(people, question.market)

    return router
