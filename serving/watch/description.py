"""What the middleware takes and answers, told of every endpoint in OpenAPI, none of which has to know of it."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from serving.problems import responses
from serving.watch import deadline

_DEADLINE = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "how long the caller waits, in ms; past it the answer is degraded, or 504",
    "schema": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**deadline.MOST_DIGITS},
}
_TURNED_AWAY = {
    str(status): said for status, said in responses(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT).items()
}


def install(api: FastAPI) -> None:
    """Add it to the description of `api`."""
    described = api.openapi

    def with_limits() -> dict[str, Any]:
        if api.openapi_schema is None:
            for operations in described()["paths"].values():
                for operation in operations.values():
                    operation.setdefault("parameters", []).append(_DEADLINE)
                    operation["responses"] = _TURNED_AWAY | operation["responses"]
        return described()

    api.openapi = with_limits  # type: ignore[method-assign]  # as FastAPI's documentation has it
