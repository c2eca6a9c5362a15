"""`/v1/features`: the values of one feature group for one key or many, as of now."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from features.declarations import FeatureGroup
from features.entities import entity as known_entity
from features.groups import GROUPS
from features.packing import Values
from features.pseudonyms import Pseudonymizer
from features.purposes import Purpose
from serving import feature_values as online
from serving.access import Access
from serving.consent_gate import ConsentGate, Person
from serving.errors import StoreUnavailableError
from serving.online_store import OnlineStore
from serving.parameters import Id, Market
from serving.problems import ProblemError, responses, unknown_name
from serving.reasons import Reason
from serving.settings import ServingSettings
from serving.store_reader import StoreReader, read_as_of_ms
from serving.tokens import Scope
from serving.watch import measures

Entity = Literal["user_id", "profile_id", "content_id", "channel_id", "platform", "cdn_region"]
"""What can be asked about. Of a session nobody can tell here whose it is, so it cannot be asked for consent."""


_VALUED_AT_ONCE = 32
"""Values of one request that are worked out on the event loop; more than that, in a thread."""


class FeatureRow(BaseModel):
    """The features of one key."""

    key: str = Field(description="the key as it was asked for", examples=["profile-17"])
    found: bool = Field(description="whether the store knows anything of the key that may be shown")
    values: dict[str, Any] = Field(
        description="by feature; null where there is no value",
        examples=[{"completion_rate": 0.82, "preferred_content_type": "vod"}],
    )
    age_ms: int | None = Field(default=None, description="as_of less its last event", examples=[41_250])
    reason: Reason | None = Field(default=None, description="why nothing is shown")


class FeatureAnswer(BaseModel):
    """What a look-up answers, and when that was true."""

    group: str = Field(examples=["user_viewing_history"])
    entity: Entity = Field(examples=["profile_id"])
    purpose: Purpose
    as_of: datetime | None = Field(description="the instant of the values (UTC); null while the store is empty")
    degraded: bool = Field(description="true if something failed and values are missing for that reason")


class OneKeyAnswer(FeatureAnswer, FeatureRow):
    """The features of one key."""


class ManyKeysAnswer(FeatureAnswer):
    """The features of many keys, in the order asked."""

    rows: list[FeatureRow]


class ManyKeysQuestion(BaseModel):
    """Which features of whom, and what for."""

    group: Id = Field(examples=["content_popularity"])
    entity: Id = Field(examples=["content_id"])
    keys: list[Id] = Field(min_length=1, description="plain ids", examples=[["vod-120", "vod-7"]])
    purpose: Purpose = Purpose.PERSONALIZATION
    market: Market = None


@dataclass(frozen=True)
class Question:
    """Groups of one entity, and the keys that they are asked for."""

    groups: Sequence[FeatureGroup]
    entity: Entity
    keys: Sequence[str]


@dataclass(frozen=True)
class GroupFound:
    """What is known of a question's keys for one of its groups, and for each key why nothing is shown."""

    values: Values
    reasons: Sequence[Reason | None]

    def rows(self, keys: Sequence[str]) -> list[FeatureRow]:
        """A row for each key."""
        names = list(self.values.columns)
        of_keys = zip(*self.values.columns.values(), strict=True)
        return [
            FeatureRow(
                key=key,
                found=reason is None and age_ms is not None,
                values=dict(zip(names, row, strict=True)),
                age_ms=age_ms,
                reason=reason,
            )
            for key, row, age_ms, reason in zip(keys, of_keys, self.values.ages_ms, self.reasons, strict=True)
        ]


@dataclass(frozen=True)
class _Packed:
    """What the store gave for a question: for each key why it is refused, and for each group the packed values."""

    refusals: Sequence[Reason | None]
    values: Sequence[Sequence[bytes | None]]


class FeatureLookup:
    """Asks the consent gate, then the online store, and values what they give."""

    def __init__(self, store: StoreReader, pseudonymizer: Pseudonymizer, settings: ServingSettings) -> None:
        self._store = store
        self._pseudonymizer = pseudonymizer
        self._gate = ConsentGate(pseudonymizer)
        self._as_of = settings.as_of

    async def rows(
        self, group: FeatureGroup, entity: Entity, keys: Sequence[str], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[FeatureRow]]:
        """The instant of the values, and a row for each key."""
        as_of_ms, (rows,) = await self.rows_of([group], entity, keys, purpose, market)
        return (None if _is_degraded(rows) else as_of_ms), rows

    async def rows_of(
        self, groups: Sequence[FeatureGroup], entity: Entity, keys: Sequence[str], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[list[FeatureRow]]]:
        """The instant of the values, and for each group a row for each key."""
        as_of_ms, (found,) = await self.answers([Question(groups, entity, keys)], purpose, market)
        return as_of_ms, [one.rows(keys) for one in found]

    async def answers(
        self, questions: Sequence[Question], purpose: Purpose, market: str | None
    ) -> tuple[int | None, list[list[GroupFound]]]:
        """The instant of the values, and for each question what is found for its groups; in one look-up."""
        try:
            as_of_ms, packed = await self._store.read(partial(self._read, questions, purpose, market))
        except StoreUnavailableError as error:
            reason = Reason.of(error)
            return None, [[_nothing(group, one.keys, reason) for group in one.groups] for one in questions]
        # Valuing is arithmetic and has no part in the store's budget. What is long must not stop the event loop, and
        # what is short is over before a thread has begun.
        value = partial(_valued, questions, packed, as_of_ms or 0)
        is_long = sum(len(one.groups) * len(one.keys) for one in questions) > _VALUED_AT_ONCE
        answers = await asyncio.to_thread(value) if is_long else value()
        for one, of_groups in zip(questions, answers, strict=True):
            for group, found in zip(one.groups, of_groups, strict=True):
                measures.served(group.name, found.values)
        return as_of_ms, answers

    def _read(
        self, questions: Sequence[Question], purpose: Purpose, market: str | None, store: OnlineStore
    ) -> tuple[int | None, list[_Packed]]:
        as_of_ms = read_as_of_ms(store, self._as_of)
        refusals = [self._refusals(one, purpose, market, store) for one in questions]
        names = [self._stored_names(one, refused) for one, refused in zip(questions, refusals, strict=True)]
        wanted = [
            (group.stored_as(one.entity), [name for few in of_keys for name in few])
            for one, of_keys in zip(questions, names, strict=True)
            for group in one.groups
        ]
        values = iter(store.get_groups(wanted))
        return as_of_ms, [
            _Packed(refused, [_first_found(next(values), of_keys) for _ in one.groups])
            for one, refused, of_keys in zip(questions, refusals, names, strict=True)
        ]

    def _refusals(
        self, one: Question, purpose: Purpose, market: str | None, store: OnlineStore
    ) -> Sequence[Reason | None]:
        if not known_entity(one.entity).is_personal:
            return [None] * len(one.keys)
        people = [Person(**{one.entity: key}) for key in one.keys]
        return self._gate.refusals(store, people, {purpose, *(group.purpose for group in one.groups)}, market)

    def _stored_names(self, one: Question, refusals: Sequence[Reason | None]) -> list[Sequence[str]]:
        """For each key, the names that something may be stored under, none if it is refused."""
        if not known_entity(one.entity).is_personal:
            return [(key,) for key in one.keys]
        hashed = self._pseudonymizer.candidates
        return [() if refusal else hashed(key) for key, refusal in zip(one.keys, refusals, strict=True)]


def _first_found(values: Sequence[bytes | None], names: Sequence[Sequence[str]]) -> list[bytes | None]:
    """For each key, the value under the first of its names that has one; `values` are those of all names in a row."""
    flat = iter(values)
    of_keys = [[next(flat) for _ in few] for few in names]
    return [next((value for value in few if value is not None), None) for few in of_keys]


def _valued(questions: Sequence[Question], packed: Sequence[_Packed], at_ms: int) -> list[list[GroupFound]]:
    return [
        [
            _found(group, one.keys, values, of_one.refusals, at_ms)
            for group, values in zip(one.groups, of_one.values, strict=True)
        ]
        for one, of_one in zip(questions, packed, strict=True)
    ]


def _found(
    group: FeatureGroup,
    keys: Sequence[str],
    values: Sequence[bytes | None],
    refusals: Sequence[Reason | None],
    at_ms: int,
) -> GroupFound:
    try:
        return GroupFound(online.columns(group, values, at_ms), refusals)
    except StoreUnavailableError as error:
        return _nothing(group, keys, Reason.of(error))


def _nothing(group: FeatureGroup, keys: Sequence[str], reason: Reason) -> GroupFound:
    return GroupFound(online.columns(group, [None] * len(keys), 0), [reason] * len(keys))


def feature_routes(lookup: FeatureLookup, settings: ServingSettings, access: Access) -> APIRouter:
    """The endpoints."""
    router = APIRouter(
        tags=["features"],
        dependencies=access.to(Scope.FEATURES),
        responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems),
    )

    @router.get("/v1/features", summary="Features of one key")
    async def one_key(
        group: Annotated[str, Query(examples=["user_viewing_history"], max_length=200)],
        user_id: Id | None = None,
        profile_id: Id | None = None,
        content_id: Id | None = None,
        channel_id: Id | None = None,
        platform: Annotated[Id | None, Query(examples=["android_tv"])] = None,
        cdn_region: Annotated[Id | None, Query(examples=["akamai/GB"])] = None,
        purpose: Purpose = Purpose.PERSONALIZATION,
        market: Market = None,
    ) -> OneKeyAnswer:
        """Exactly one of user_id, profile_id, content_id, channel_id, platform and cdn_region, plain.

        People's are hashed here.

        An unknown key is an answer, not an error: `found` is false and every value null. So is a person who
        does not allow the purpose: `reason` says so, and no value is read.
        """
        named: dict[Entity, str | None] = {
            "user_id": user_id,
            "profile_id": profile_id,
            "content_id": content_id,
            "channel_id": channel_id,
            "platform": platform,
            "cdn_region": cdn_region,
        }
        given = {name: key for name, key in named.items() if key is not None}
        if len(given) != 1:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"name exactly one of {', '.join(named)}; received {', '.join(given) or 'none'}",
            )
        ((entity, key),) = given.items()
        declared = _declared(group, entity)
        as_of_ms, (row,) = await lookup.rows(declared, entity, [key], purpose, market)
        return OneKeyAnswer(
            group=group,
            entity=entity,
            purpose=purpose,
            as_of=online.iso_instant(as_of_ms),
            degraded=_is_degraded([row]),
            **row.model_dump(),
        )

    @router.post("/v1/features", summary="Features of many keys")
    async def many_keys(question: ManyKeysQuestion) -> ManyKeysAnswer:
        """The same for many keys of one entity, in one look-up; rows come in the order of the keys."""
        return await answer_many(lookup, question, settings.max_keys)

    return router


async def answer_many(lookup: FeatureLookup, question: ManyKeysQuestion, most_keys: int) -> ManyKeysAnswer:
    """The answer to a question that came over HTTP or gRPC. Raises ProblemError if there is none to give."""
    if len(question.keys) > most_keys:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"at most {most_keys} keys at once; received {len(question.keys)}"
        )
    declared = _declared(question.group, question.entity)
    entity: Entity = question.entity  # type: ignore[assignment]  # _declared refused every other name
    as_of_ms, rows = await lookup.rows(declared, entity, question.keys, question.purpose, question.market)
    return ManyKeysAnswer(
        group=question.group,
        entity=entity,
        purpose=question.purpose,
        as_of=online.iso_instant(as_of_ms),
        degraded=_is_degraded(rows),
        rows=rows,
    )


def _declared(name: str, entity: str) -> FeatureGroup:
    declared = next((group for group in GROUPS if group.name == name), None)
    if declared is None:
        raise unknown_name("feature group", name, [group.name for group in GROUPS], HTTPStatus.NOT_FOUND)
    served = [one for one in declared.entities if one in get_args(Entity)]
    if entity not in served:
        raise unknown_name(f"entity of {name}", entity, served, HTTPStatus.UNPROCESSABLE_ENTITY)
    return declared


def _is_degraded(rows: Sequence[FeatureRow]) -> bool:
    return any(row.reason is not None and row.reason.is_degraded for row in rows)
