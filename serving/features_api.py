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

Entity = Literal["user_id", "profile_id", "content_id", "channel_id", "cdn_region"]
"""What can be asked about. Of a session nobody can tell here whose it is, so it cannot be asked for consent."""


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
class _Found:
    """What the store gave: an instant, for each key why it is refused, and for each group the keys' packed values."""

    as_of_ms: int | None
    refusals: Sequence[Reason | None]
    packed: Sequence[Sequence[bytes | None]]


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
        """The instant of the values, and for each group a row for each key; consent is asked for once."""
        try:
            found = await self._store.read(partial(self._read, groups, entity, keys, purpose, market))
        except StoreUnavailableError as error:
            return None, [_nothing(group, keys, Reason.of(error)) for group in groups]
        # Valuing is arithmetic: it has no part in the store's budget, and none on the event loop.
        rows_of_groups = await asyncio.to_thread(_valued, groups, keys, found)
        for group, rows in zip(groups, rows_of_groups, strict=True):
            measures.served(group.name, [(row.age_ms, row.values) for row in rows])
        return found.as_of_ms, rows_of_groups

    def _read(
        self,
        groups: Sequence[FeatureGroup],
        entity: Entity,
        keys: Sequence[str],
        purpose: Purpose,
        market: str | None,
        store: OnlineStore,
    ) -> _Found:
        as_of_ms = read_as_of_ms(store, self._as_of)
        if not known_entity(entity).is_personal:
            values = [store.get_many(group.stored_as(entity), keys) for group in groups]
            return _Found(as_of_ms, [None] * len(keys), values)
        people = [Person(**{entity: key}) for key in keys]
        refusals = self._gate.refusals(store, people, {purpose, *(group.purpose for group in groups)}, market)
        hashes = [
            () if refusal else self._pseudonymizer.candidates(key) for key, refusal in zip(keys, refusals, strict=True)
        ]
        return _Found(as_of_ms, refusals, [_first_found(store, group.stored_as(entity), hashes) for group in groups])


def _first_found(store: OnlineStore, stored: str, hashes: Sequence[Sequence[str]]) -> list[bytes | None]:
    """For each person, the value under the first of their hashes that has one."""
    flat = iter(store.get_many(stored, [entity_hash for few in hashes for entity_hash in few]))
    values = [[next(flat) for _ in few] for few in hashes]
    return [next((value for value in few if value is not None), None) for few in values]


def _valued(groups: Sequence[FeatureGroup], keys: Sequence[str], found: _Found) -> list[list[FeatureRow]]:
    rows = []
    for group, packed in zip(groups, found.packed, strict=True):
        try:
            valued = online.value(group, packed, found.as_of_ms or 0)
        except StoreUnavailableError as error:
            rows.append(_nothing(group, keys, Reason.of(error)))
        else:
            rows.append([_row(*one) for one in zip(keys, valued, found.refusals, strict=True)])
    return rows


def _nothing(group: FeatureGroup, keys: Sequence[str], reason: Reason) -> list[FeatureRow]:
    return [_row(key, one, reason) for key, one in zip(keys, online.value(group, [None] * len(keys), 0), strict=True)]


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
        cdn_region: Annotated[Id | None, Query(examples=["akamai/GB"])] = None,
        purpose: Purpose = Purpose.PERSONALIZATION,
        market: Market = None,
    ) -> OneKeyAnswer:
        """Exactly one of user_id, profile_id, content_id, channel_id and cdn_region, plain: people's are hashed here.

        An unknown key is an answer, not an error: `found` is false and every value null. So is a person who
        does not allow the purpose: `reason` says so, and no value is read.
        """
        named: dict[Entity, str | None] = {
            "user_id": user_id,
            "profile_id": profile_id,
            "content_id": content_id,
            "channel_id": channel_id,
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


def _row(key: str, valued: online.Valued, reason: Reason | None) -> FeatureRow:
    found = reason is None and valued.age_ms is not None
    return FeatureRow(key=key, found=found, values=valued.values, age_ms=valued.age_ms, reason=reason)


def _is_degraded(rows: Sequence[FeatureRow]) -> bool:
    return any(row.reason is not None and row.reason.is_degraded for row in rows)
