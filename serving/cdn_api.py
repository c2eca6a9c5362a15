"""`/v1/cdn/route`: which delivery network a session should go over; `/v1/cdn/outcomes`: how sessions went.

1. the consent gate          without an allowed person the choice goes by network, region and hour alone
2. features                  of each network in the region, and of the person where they are allowed
3. the model                 missing, or too slow: each network's mean score in the region over 7 days; where that
                             cannot be read either, all networks are alike
4. the policy                mostly the best one, others the rarer the worse they seem; a network that got worse within
                             the last sessions (`models.cdn.degradation`) only for 2 % of all, to see it recover

The log keeps what was known (`cdns`, `region`, `expected`, `probabilities`, `degraded`) and the choice (`cdn`), whose
probability is its propensity: what another policy would have earned can be told from that.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
from fastapi import APIRouter
from pydantic import BaseModel, Field

from features.entities import key_of
from features.groups.qoe_signals import QOE_SIGNALS
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from models.cdn.features import NETWORK, REGION
from models.cdn.policy import GAMMA
from serving import feature_values as online
from serving.access import Access
from serving.consent_gate import ConsentGate, Person
from serving.errors import ModelUnavailableError, StoreUnavailableError
from serving.hosting.questions import Expectations, Routes
from serving.online_store import OnlineStore
from serving.parameters import Id, Market
from serving.predicting import ExperimentArm, Logged, Predicted, Predicting
from serving.problems import ProblemError, responses
from serving.reasons import Reason
from serving.routing import choose, probabilities
from serving.settings import ServingSettings
from serving.store_reader import StoreReader, read_as_of_ms
from serving.tokens import Scope

MODEL = "cdn"
MOST_NETWORKS = 20
MOST_OUTCOMES = 1000
_SIGNALS = ("avg_qoe_score", "rebuffer_frequency")
Name = Annotated[str, Field(min_length=1, max_length=100)]
# Together they are a key, which every store takes up to 100 letters, whatever they are.
Network = Annotated[str, Field(min_length=1, max_length=60)]
Region = Annotated[str, Field(min_length=1, max_length=30)]


class RouteQuestion(BaseModel):
    """A session about to start, and the networks it can go over."""

    cdns: list[Network] = Field(min_length=1, max_length=MOST_NETWORKS, examples=[["akamai", "fastly"]])
    region: Region = Field(description="country of the client", examples=["GB"])
    user_id: Id | None = None
    profile_id: Id | None = None
    session_id: Id | None = Field(default=None, description="by which the log can be joined with how it went")
    device_type: Name | None = Field(default=None, examples=["tv"])
    connection_type: Name | None = Field(default=None, examples=["wifi"])
    time_zone: Name | None = Field(
        default=None, description="of the client, IANA; else UTC", examples=["Europe/London"]
    )
    market: Market = None


class NetworkOffer(BaseModel):
    """One network as it was weighed."""

    cdn: str = Field(examples=["akamai"])
    expected_quality: float | None = Field(
        description="score of the session over it, 0 to 100; null where nothing is known", examples=[78.5]
    )
    probability: float = Field(description="to be chosen", examples=[0.93])
    is_degraded: bool = Field(description="it got worse in the region within the last sessions")


class Route(BaseModel):
    """The network to go over, and how it came to that."""

    cdn: str = Field(description="the choice", examples=["akamai"])
    propensity: float = Field(description="the probability that the choice had", examples=[0.93])
    networks: list[NetworkOffer] = Field(description="in the order asked")
    source: Literal["model", "region", "uniform"] = Field(
        description="region: by each network's mean score there; uniform: all networks alike"
    )
    is_personal: bool = Field(description="whether anything about the person or their device was looked at")
    reason: Reason | None = Field(description="why the answer is less than it could be")
    degraded: bool = Field(description="true if something failed and the choice is worse for that reason")
    model: str = MODEL
    model_version: str | None = Field(default=None, examples=["3"])
    experiment: ExperimentArm | None = None
    as_of: datetime | None = Field(description="the instant of the features (UTC)")


class Outcome(BaseModel):
    """A session that ended, or that went over to another network."""

    cdn: Network = Field(examples=["akamai"])
    region: Region = Field(examples=["GB"])
    score: float = Field(ge=0, le=100, description="its quality score over that network", examples=[71.0])


class Outcomes(BaseModel):
    """Sessions in the order in which they ended."""

    outcomes: list[Outcome] = Field(min_length=1, max_length=MOST_OUTCOMES)


class Received(BaseModel):
    """What became of outcomes."""

    received: int = Field(description="how many were taken; 0 while nobody can take them")
    degraded: bool


@dataclass(frozen=True)
class _Found:
    """What the store says: why the person is not looked at, packed signals of each network, and of the person."""

    as_of_ms: int | None
    refusal: Reason | None
    networks: Sequence[bytes | None]
    person: bytes | None


@dataclass(frozen=True)
class _Known:
    """The same as values; `reason` says why it is not all, and `is_personal` whether the person allows it."""

    as_of_ms: int | None
    reason: Reason | None
    is_personal: bool
    networks: Sequence[Mapping[str, Any]]
    person: Mapping[str, Any]


@dataclass(frozen=True)
class Routing:
    """Answers from the store, the model and the watches of networks."""

    store: StoreReader
    predicting: Predicting
    pseudonymizer: Pseudonymizer
    settings: ServingSettings
    _generator: np.random.Generator = field(default_factory=np.random.default_rng)

    async def answer(self, asked: RouteQuestion) -> Route:
        """The answer; whatever fails, there is a choice."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + self.settings.deadline_ms / 1000
        known = await self._known(asked)
        left_s = deadline_s - clock()
        degraded, given = await asyncio.gather(self._degraded(asked, left_s), self._predicted(asked, known, left_s))
        if isinstance(given, Reason):
            expected, gamma = [one["avg_qoe_score"] for one in known.networks], GAMMA
        else:
            expected, gamma = list(given.answer.scores), given.answer.gamma
        shares = probabilities(expected, degraded, gamma)
        place = choose(shares, self._generator)
        answer = Route(
            cdn=asked.cdns[place],
            propensity=shares[place],
            networks=[
                NetworkOffer(cdn=cdn, expected_quality=score, probability=share, is_degraded=bad)
                for cdn, score, share, bad in zip(asked.cdns, expected, shares, degraded, strict=True)
            ],
            source=_source(expected, given),
            is_personal=known.is_personal and isinstance(given, Predicted),
            reason=known.reason,
            degraded=known.reason is not None and known.reason.is_degraded,
            as_of=online.iso_instant(known.as_of_ms),
        )
        if isinstance(given, Reason):
            return answer.model_copy(update={"reason": given, "degraded": True})
        if known.is_personal:
            self.predicting.record(given, known.as_of_ms, partial(self._logged, asked, degraded, place))
        return answer.model_copy(update={"model_version": given.given.version, "experiment": given.experiment})

    async def received(self, outcomes: Sequence[Outcome]) -> Received:
        """Hand ended sessions to the watches."""
        sessions = [(one.cdn, one.region, one.score) for one in outcomes]
        try:
            await self.predicting.client.ended(sessions, self.settings.deadline_ms / 1000)
        except ModelUnavailableError:
            return Received(received=0, degraded=True)
        return Received(received=len(sessions), degraded=False)

    async def _known(self, asked: RouteQuestion) -> _Known:
        nothing = [dict.fromkeys(_SIGNALS)] * len(asked.cdns)
        try:
            found = await self.store.read(partial(self._look_up, asked), is_short=True)
            packed = [*found.networks, found.person]
            rows = await asyncio.to_thread(online.value, QOE_SIGNALS, packed, found.as_of_ms or 0)
        except StoreUnavailableError as error:
            return _Known(None, Reason.of(error), False, nothing, {})
        *networks, person = [one.values for one in rows]
        is_personal = found.refusal is None and _person(asked) is not None
        return _Known(found.as_of_ms, found.refusal, is_personal, networks, person if is_personal else {})

    def _look_up(self, asked: RouteQuestion, store: OnlineStore) -> _Found:
        as_of_ms = read_as_of_ms(store, self.settings.as_of)
        keys = key_of([pa.array(asked.cdns), pa.array([asked.region] * len(asked.cdns))]).to_pylist()
        networks = store.get_many(QOE_SIGNALS.stored_as("cdn_region"), keys)
        person = _person(asked)
        if person is None:
            return _Found(as_of_ms, None, networks, None)
        purposes = {Purpose.PERSONALIZATION, QOE_SIGNALS.purpose}
        (refusal,) = ConsentGate(self.pseudonymizer).refusals(store, [person], purposes, asked.market)
        if refusal is not None or person.user_id is None:
            return _Found(as_of_ms, refusal, networks, None)
        hashes = self.pseudonymizer.candidates(person.user_id)
        own = store.get_many(QOE_SIGNALS.stored_as("user_id"), hashes)
        return _Found(as_of_ms, None, networks, next((value for value in own if value is not None), None))

    async def _predicted(self, asked: RouteQuestion, known: _Known, timeout_s: float) -> Predicted | Reason:
        """The model's answer, or why there is none."""
        unit = self.pseudonymizer.hash(asked.user_id) if asked.user_id is not None and known.is_personal else None
        question = Routes(_columns(asked, known))
        try:
            return await self.predicting.ask(MODEL, unit, question, timeout_s)
        except ModelUnavailableError as error:
            return Reason.of(error)

    async def _degraded(self, asked: RouteQuestion, timeout_s: float) -> list[bool]:
        """Of each network; where nobody can say, none is known to be."""
        try:
            return await self.predicting.client.degraded(asked.cdns, asked.region, timeout_s)
        except ModelUnavailableError:
            return [False] * len(asked.cdns)

    def _logged(self, asked: RouteQuestion, degraded: Sequence[bool], place: int, answer: Expectations) -> list[Logged]:
        """Of the champion's answer and of a shadow's; the choice, and its propensity by whichever expected it."""
        shares = probabilities(answer.scores, degraded, answer.gamma)
        person = _person(asked)
        if person is None:
            return []
        prediction = {
            "cdns": asked.cdns,
            "region": asked.region,
            "expected": list(answer.scores),
            "probabilities": shares,
            "degraded": list(degraded),
            "cdn": asked.cdns[place],
        }
        session = None if asked.session_id is None else self.pseudonymizer.hash(asked.session_id)
        about = ConsentGate(self.pseudonymizer).hashes(person)
        return [Logged(prediction, about, session, shares[place])]


def _person(asked: RouteQuestion) -> Person | None:
    if asked.user_id is None and asked.profile_id is None:
        return None
    return Person(user_id=asked.user_id, profile_id=asked.profile_id)


def _source(expected: Sequence[float | None], given: Predicted | Reason) -> Literal["model", "region", "uniform"]:
    if all(score is None for score in expected):
        return "uniform"
    return "model" if isinstance(given, Predicted) else "region"


def _columns(asked: RouteQuestion, known: _Known) -> Mapping[str, Sequence[Any]]:
    """The model's columns, a row a network. Of who may not be looked at their device is not either."""
    count = len(asked.cdns)
    at_ms = time.time_ns() // 1_000_000 if known.as_of_ms is None else known.as_of_ms
    zone = _zone(asked.time_zone) if known.is_personal and asked.time_zone is not None else UTC
    local = datetime.fromtimestamp(at_ms / 1000, zone)
    said: dict[str, Any] = {
        "session_context__time_of_day": local.hour,
        "session_context__day_of_week": local.weekday(),
        "session_context__device_type": asked.device_type if known.is_personal else None,
        "session_context__connection_type": asked.connection_type if known.is_personal else None,
    }
    said |= {f"qoe_signals_by_user_id__{name}": known.person.get(name) for name in _SIGNALS}
    of_network = {f"qoe_signals_by_cdn_region__{name}": [one[name] for one in known.networks] for name in _SIGNALS}
    named = {NETWORK: asked.cdns, REGION: [asked.region] * count}
    return {**named, **of_network, **{name: [value] * count for name, value in said.items()}}


def _zone(name: str) -> ZoneInfo:
    """Raises ProblemError for a name that no time zone has."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"no time zone is called {name!r}; names are IANA's, as Europe/London"
        ) from None


def cdn_routes(routing: Routing, access: Access) -> APIRouter:
    """The endpoints."""
    router = APIRouter(
        tags=["cdn"],
        dependencies=access.to(Scope.CDN),
        responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.post("/v1/cdn/route", summary="The delivery network a session should go over")
    async def route(question: RouteQuestion) -> Route:
        """There is always a choice, drawn at random by `probability`: keep `propensity` with what came of it.

        Without user_id and profile_id, and for a child or somebody who refuses, it goes by network, region and hour.
        """
        if len(set(question.cdns)) < len(question.cdns):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "a network is named twice; name each once")
        if question.time_zone is not None:
            _zone(question.time_zone)
        return await routing.answer(question)

    @router.post("/v1/cdn/outcomes", summary="How sessions went")
    async def outcomes(question: Outcomes) -> Received:
        """Tells within some sessions that a network got worse; nothing about a person is in it, and nothing is kept."""
        return await routing.received(question.outcomes)

    return router
