"""`/get-online-features`: the protocol of Feast's feature server, so that its `remote` online store reads from here.

What is asked for is a feature service by its name (`features/services.py`) or a list of `view:feature`. The purpose is
the service's, or the one that the caller's token says; without one nothing is read. Ids of people are plain, as
everywhere here: they are hashed on arrival, and who does not allow the purpose is answered like somebody unknown.

    PRESENT          a value
    NULL_VALUE       the key is known, and the feature has no value
    NOT_FOUND        the key is not known, or may not be shown: `reasons` says why
    OUTSIDE_MAX_AGE  the last event is longer ago than the group's TTL
    INVALID          the store could not be read: `degraded` is true
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

import pyarrow as pa
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from features.entities import entity as known_entity
from features.entities import key_of
from features.errors import FeatureError
from features.groups import GROUPS
from features.purposes import Purpose
from features.selection import require_declared_for
from features.services import Service, View, services_of, views_of
from serving.access import Access
from serving.feature_lookup import Entity, FeatureLookup, GroupFound, Question
from serving.parameters import Id
from serving.problems import ProblemError, responses, unknown_name
from serving.reasons import Reason
from serving.settings import ServingSettings
from serving.tokens import Caller, Scope

SERVICES = {service.name: service for service in services_of(GROUPS)}
VIEWS = {view.name: view for view in views_of(GROUPS)}
MOST_FEATURES = 200
_NO_INSTANT = "1970-01-01T00:00:00Z"  # Feast's null
Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]


class OnlineFeaturesQuestion(BaseModel):
    """What Feast's clients send."""

    entities: dict[str, list[Id]] = Field(
        description="plain ids, by column", examples=[{"content_id": ["vod-120", "vod-7"]}]
    )
    feature_service: Id | None = Field(default=None, examples=["personalization_by_content_id"])
    features: list[Id] = Field(
        default=[],
        max_length=MOST_FEATURES,
        description="`view:feature`, where no service is named",
        examples=[["content_popularity_by_content_id:hourly_viewers"]],
    )
    full_feature_names: bool = Field(default=False, description="columns are called `view__feature`")
    include_feature_view_version_metadata: bool = False


class FeatureVector(BaseModel):
    """One column: a value, a status and the instant of the last event for each key."""

    values: list[Any]
    statuses: list[Status]
    event_timestamps: list[str]


class Metadata(BaseModel):
    """Which column is which."""

    feature_names: list[str]
    feature_view_metadata: list[dict[str, Any]] | None = None


class OnlineFeatures(BaseModel):
    """What Feast's clients read; and, for others, whether and why something is missing."""

    metadata: Metadata
    results: list[FeatureVector]
    status: bool = True
    degraded: bool = Field(description="true if something failed and values are missing for that reason")
    reasons: list[Reason | None] = Field(description="for each key, why nothing is shown")


@dataclass(frozen=True)
class _Asked:
    """Features of one view, and the keys they are asked for."""

    view: View
    features: Sequence[str]
    entity: Entity
    keys: Sequence[str]

    def names(self, question: OnlineFeaturesQuestion) -> list[str]:
        return [f"{self.view.name}__{one}" if question.full_feature_names else one for one in self.features]


def feast_routes(lookup: FeatureLookup, settings: ServingSettings, access: Access) -> APIRouter:
    """The endpoint."""
    statuses = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, *access.problems)
    router = APIRouter(tags=["features"], responses=responses(*statuses))
    (caller_of,) = access.to(Scope.FEATURES)

    @router.post("/get-online-features", summary="Features, as Feast's clients ask", response_model=OnlineFeatures)
    async def online_features(question: OnlineFeaturesQuestion, caller: Annotated[Caller, caller_of]) -> Response:
        """Feast's feature server's call: Feast with `online_store: {type: remote, path: …}` works unchanged.

        The purpose is the feature service's; a list of features needs a token that says one (claim `purpose`).
        Ids of people are plain here. Who does not allow the purpose is `NOT_FOUND`, and `reasons` says why.
        """
        service = _service(question)
        asked = [_asked(view, names, question, settings) for view, names in _features(question, service)]
        _check_names(asked, question)
        purpose = _purpose(service, caller, asked)
        found = await _found(lookup, asked, purpose)
        return Response(to_json(_answer(question, asked, found)), media_type="application/json")

    return router


def _service(question: OnlineFeaturesQuestion) -> Service | None:
    name = question.feature_service
    if name is not None and name not in SERVICES:
        raise unknown_name("feature service", name, SERVICES, HTTPStatus.NOT_FOUND)
    if name is None and not question.features:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "name a feature_service, or features as view:feature")
    return None if name is None else SERVICES[name]


def _features(question: OnlineFeaturesQuestion, service: Service | None) -> list[tuple[View, list[str]]]:
    """The views, in the order asked, and which of their features."""
    if service is not None:
        return [(view, [feature.name for feature in view.group.features]) for view in service.views]
    asked: dict[str, list[str]] = {}
    for ref in question.features:
        view, _, feature = ref.partition(":")
        if view not in VIEWS:
            raise unknown_name("feature view", view, VIEWS, HTTPStatus.NOT_FOUND)
        known = [one.name for one in VIEWS[view].group.features]
        if feature not in known:
            raise unknown_name(f"feature of {view}", feature, known, HTTPStatus.NOT_FOUND)
        asked.setdefault(view, []).append(feature)
    return [(VIEWS[view], names) for view, names in asked.items()]


def _asked(view: View, names: list[str], question: OnlineFeaturesQuestion, settings: ServingSettings) -> _Asked:
    served = get_args(Entity)
    if view.entity not in served:
        # Of a session nobody can tell here whose it is, so it cannot be asked for consent.
        raise unknown_name(f"entity of {view.name}", view.entity, served, HTTPStatus.UNPROCESSABLE_ENTITY)
    columns = known_entity(view.entity).columns
    missing = [column for column in columns if column not in question.entities]
    if missing:
        given = ", ".join(question.entities) or "none"
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{view.name} needs the entities {', '.join(missing)}; received {given}"
        )
    lengths = {len(keys) for keys in question.entities.values()}
    if len(lengths) > 1 or lengths == {0}:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"give each entity as many keys, at least one; received {sorted(lengths)}"
        )
    if max(lengths) > settings.max_keys:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"at most {settings.max_keys} keys at once; received {max(lengths)}"
        )
    keys = _keys([question.entities[column] for column in columns])
    return _Asked(view, names, view.entity, keys)  # type: ignore[arg-type]  # every other entity was refused


def _keys(columns: Sequence[Sequence[str]]) -> list[str]:
    if len(columns) == 1:
        return list(columns[0])
    try:
        keys: list[str] = key_of([pa.array(column, pa.string()) for column in columns]).to_pylist()
    except UnicodeEncodeError:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "a key is no text in UTF-8") from None
    return keys


def _check_names(asked: Sequence[_Asked], question: OnlineFeaturesQuestion) -> None:
    names = [name for one in asked for name in one.names(question)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{twice} is asked for twice; leave one out, or set full_feature_names"
        )


def _purpose(service: Service | None, caller: Caller, asked: Sequence[_Asked]) -> Purpose:
    """The service's purpose or the token's, which must not differ, and must be that of every group."""
    said = caller.purpose if service is None else service.purpose
    if said is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "no purpose is given: ask through a feature service, or with a token that says one (claim `purpose`)",
        )
    if said not in set(Purpose):
        raise ProblemError(HTTPStatus.FORBIDDEN, f"the token's purpose is none of {', '.join(Purpose)}")
    if caller.purpose not in (None, said):
        raise ProblemError(
            HTTPStatus.FORBIDDEN, f"the feature service is for {said}, and the token says another purpose"
        )
    try:
        return require_declared_for(Purpose(said), {one.view.name: one.view.group for one in asked})
    except FeatureError as error:
        raise ProblemError(HTTPStatus.FORBIDDEN, str(error)) from None


@dataclass(frozen=True)
class _Found:
    """What is known of the keys of one view: the values, why there are none, and when the last events were."""

    found: GroupFound
    instants: Sequence[str]

    def statuses(self, feature: str, ttl_ms: int) -> list[Status]:
        """What Feast says of each value of a feature: whether it is there, too old, or not to be shown."""
        ages_ms, reasons = self.found.values.ages_ms, self.found.reasons
        column = self.found.values.columns[feature]
        return [
            _status(value, age_ms, reason, ttl_ms)
            for value, age_ms, reason in zip(column, ages_ms, reasons, strict=True)
        ]


async def _found(lookup: FeatureLookup, asked: Sequence[_Asked], purpose: Purpose) -> dict[str, _Found]:
    """By view; the views of one entity make one question, so that consent is asked for once."""
    together: dict[Entity, list[_Asked]] = {}
    for one in asked:
        together.setdefault(one.entity, []).append(one)
    questions = [
        Question([one.view.group for one in views], entity, views[0].keys) for entity, views in together.items()
    ]
    as_of_ms, answers = await lookup.answers(questions, purpose, None)
    return {
        one.view.name: _Found(of_group, [_instant(as_of_ms, age_ms) for age_ms in of_group.values.ages_ms])
        for views, of_groups in zip(together.values(), answers, strict=True)
        for one, of_group in zip(views, of_groups, strict=True)
    }


def _answer(question: OnlineFeaturesQuestion, asked: Sequence[_Asked], found: Mapping[str, _Found]) -> dict[str, Any]:
    """`OnlineFeatures` as JSON: first the keys as they were asked for, then the features."""
    needed = {column for one in asked for column in known_entity(one.entity).columns}
    names: list[str] = []
    results: list[dict[str, Any]] = []
    for column, keys in question.entities.items():
        if column in needed:
            names.append(column)
            results.append(_vector(keys, ["PRESENT"] * len(keys), [_NO_INSTANT] * len(keys)))
    for one in asked:
        of_view = found[one.view.name]
        names += one.names(question)
        for feature in one.features:
            statuses = of_view.statuses(feature, one.view.group.ttl_ms)
            results.append(_vector(of_view.found.values.columns[feature], statuses, of_view.instants))
    of_keys = list(zip(*(one.found.reasons for one in found.values()), strict=True))
    reasons = [next((reason for reason in of_key if reason), None) for of_key in of_keys]
    metadata: dict[str, Any] = {"feature_names": names}
    if question.include_feature_view_version_metadata:
        metadata["feature_view_metadata"] = [{"name": one.view.name} for one in asked]
    return {
        "metadata": metadata,
        "results": results,
        "status": True,
        "degraded": any(reason is not None and reason.is_degraded for of_key in of_keys for reason in of_key),
        "reasons": reasons,
    }


def _instant(as_of_ms: int | None, age_ms: int | None) -> str:
    if as_of_ms is None or age_ms is None:
        return _NO_INSTANT
    at = datetime.fromtimestamp((as_of_ms - age_ms) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _vector(values: Sequence[Any], statuses: Sequence[str], instants: Sequence[str]) -> dict[str, Any]:
    return {"values": values, "statuses": statuses, "event_timestamps": instants}


def _status(value: Any, age_ms: int | None, reason: Reason | None, ttl_ms: int) -> Status:
    if reason is not None:
        return "INVALID" if reason.is_degraded else "NOT_FOUND"
    if age_ms is None:
        return "NOT_FOUND"
    if age_ms > ttl_ms:
        return "OUTSIDE_MAX_AGE"
    return "NULL_VALUE" if value is None else "PRESENT"
