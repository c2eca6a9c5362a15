"""The gRPC call LookUp: the same look-up as POST /v1/features, behind the same door."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from pydantic import ValidationError
from ray.serve.grpc_util import RayServegRPCContext

from serving import problems
from serving.access import Access
from serving.feature_lookup import FeatureLookup, FeatureRow
from serving.features_api import ManyKeysAnswer, ManyKeysQuestion, answer_many
from serving.problems import ProblemError
from serving.rpc.features_pb2 import LookUpRequest, LookUpResponse, Row
from serving.settings import ServingSettings
from serving.tokens import Scope
from serving.watch import trace
from serving.watch.answers import Said
from serving.watch.request import Watcher

ENDPOINT = "/reel.features.v1.Features/LookUp"
_CODES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_log = logging.getLogger(__name__)


class FeatureRpc:
    """Answers LookUp; problems become gRPC's codes, with the problem's detail."""

    def __init__(self, lookup: FeatureLookup, settings: ServingSettings, access: Access, watcher: Watcher) -> None:
        self._lookup = lookup
        self._settings = settings
        self._access = access
        self._watcher = watcher

    async def look_up(self, request: LookUpRequest, context: RayServegRPCContext) -> LookUpResponse:
        """The answer; where there is none, an empty one with the context's code set.

        Nothing is raised: Ray Serve would write the traceback, and with it what was asked, into its log.
        """
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        with self._watcher.watch("GRPC", headers) as watched:
            watched.endpoint = ENDPOINT
            trailing = {trace.ANSWER_HEADER: watched.trace.trace_id}
            try:
                async with self._watcher.limits(headers):
                    answer = await self._answer(request, headers)
            except ProblemError as error:
                problem = error.problem
                retry = {name.lower(): value for name, value in (error.headers or {}).items() if name == "Retry-After"}
                trailing |= retry
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets an answer
                _log.error("unexpected failure in %s", ENDPOINT, exc_info=error)
                problem = problems.unexpected()
            else:
                watched.status = HTTPStatus.OK
                watched.said = _said(answer)
                context.set_trailing_metadata(list(trailing.items()))
                return _message(answer)
            watched.status = problem.status
            context.set_trailing_metadata(list(trailing.items()))
            context.set_code(_CODES.get(HTTPStatus(problem.status), grpc.StatusCode.INTERNAL))
            context.set_details(problem.detail)
            return LookUpResponse()

    async def _answer(self, request: LookUpRequest, headers: Mapping[str, str]) -> ManyKeysAnswer:
        await self._access.caller(_bearer(headers), Scope.FEATURES)
        most_bytes = self._settings.max_body_bytes
        if request.ByteSize() > most_bytes:
            detail = f"a request may have {most_bytes} bytes; ask for fewer keys at once"
            raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        return await answer_many(self._lookup, _question(request), self._settings.max_keys)


def _bearer(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" and token else None


def _question(request: LookUpRequest) -> ManyKeysQuestion:
    given = {"group": request.group, "entity": request.entity, "keys": list(request.keys)}
    given |= {name: getattr(request, name) for name in ("purpose", "market") if request.HasField(name)}
    try:
        return ManyKeysQuestion.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: {first['msg']}") from None


def _said(answer: ManyKeysAnswer) -> Said:
    reasons = {row.reason.value for row in answer.rows if row.reason is not None}
    return Said(degraded=answer.degraded, reasons=tuple(sorted(reasons)))


def _message(answer: ManyKeysAnswer) -> LookUpResponse:
    message = LookUpResponse(
        group=answer.group,
        entity=answer.entity,
        purpose=answer.purpose.value,
        degraded=answer.degraded,
        rows=[_row(row) for row in answer.rows],
    )
    if answer.as_of is not None:
        message.as_of.FromDatetime(answer.as_of)
    return message


def _row(row: FeatureRow) -> Row:
    values = row.model_dump(mode="json", include={"values"})["values"]  # as in the HTTP answer
    return Row(
        key=row.key,
        found=row.found,
        values={name: ParseDict(value, Value()) for name, value in values.items()},
        age_ms=row.age_ms,
        reason=None if row.reason is None else row.reason.value,
    )
