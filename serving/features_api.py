"""`/v1/features`: the values of one feature group for one key or many, as of now."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from features.declarations import FeatureGroup
from features.groups import GROUPS
from features.purposes import Purpose
from serving import feature_values as online
from serving.access import Access
from serving.feature_lookup import Entity, FeatureLookup, FeatureRow, is_degraded
from serving.parameters import Id, Market
from serving.problems import ProblemError, responses, unknown_name
from serving.query_route import QueryRoute
from serving.settings import ServingSettings
from serving.tokens import Scope


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


def feature_routes(lookup: FeatureLookup, settings: ServingSettings, access: Access) -> APIRouter:
    """The endpoints."""
    router = APIRouter(
        route_class=QueryRoute,
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
            degraded=is_degraded([row]),
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
        degraded=is_degraded(rows),
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
