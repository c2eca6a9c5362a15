"""Endpoints that are asked by their query string alone: FastAPI describes them, one model reads what was asked.

FastAPI itself looks at the type of each parameter again at every request. For one group of one key that was a third of
the time in this process, and more.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeGuard, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError, create_model


class Check(Protocol):
    """A dependency that can also be asked without FastAPI; what it gives is nobody's parameter."""

    async def of_request(self, request: Request) -> object:
        """Raises ProblemError if the request may not go on."""


class QueryRoute(APIRoute):
    """The route class of such endpoints: `APIRouter(route_class=QueryRoute)`. Of all others it is FastAPI's own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request of this route."""
        checks = [one.dependency for one in self.dependencies]
        if not self._is_asked_by_query_alone() or not _can_be_asked(checks):
            return super().get_route_handler()
        endpoint, asked = self.endpoint, _query_of(self.endpoint)

        async def answer(request: Request) -> Response:
            for check in checks:
                await check.of_request(request)
            try:
                given = asked.model_validate(dict(request.query_params))
            except ValidationError as error:
                raise RequestValidationError(_faults(error)) from None
            answered: BaseModel = await endpoint(**{name: getattr(given, name) for name in asked.model_fields})
            return Response(answered.model_dump_json(), media_type="application/json")

        return answer

    def _is_asked_by_query_alone(self) -> bool:
        needs = self.dependant
        others = (needs.path_params, needs.header_params, needs.cookie_params, needs.body_params)
        is_alone = bool(needs.query_params) and not any(others) and len(needs.dependencies) == len(self.dependencies)
        returned = get_type_hints(self.endpoint).get("return")
        return is_alone and isinstance(returned, type) and issubclass(returned, BaseModel)


def _can_be_asked(checks: list[Any]) -> TypeGuard[list[Check]]:
    return all(hasattr(check, "of_request") for check in checks)


def _query_of(endpoint: Callable[..., Any]) -> type[BaseModel]:
    """The endpoint's parameters as the fields of one model."""
    hints = get_type_hints(endpoint, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(endpoint).parameters.items()
    }
    return create_model(f"{endpoint.__name__}_query", **fields)


def _faults(error: ValidationError) -> list[dict[str, Any]]:
    """As FastAPI has them: of a parameter that is missing nothing was received, not all the others."""
    return [
        {**fault, "loc": ("query", *fault["loc"]), "input": None if fault["type"] == "missing" else fault["input"]}
        for fault in error.errors(include_url=False)
    ]
