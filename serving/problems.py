"""Errors as callers see them: RFC 9457 problem details, never a stack trace."""

import difflib
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
# What was received is shown back at most this long.
SHOWN_LETTERS = 100


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(default="about:blank", description="which kind of problem; about:blank: the status says it all")
    title: str = Field(description="the status in words", examples=["Not Found"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(
        description="what was wrong and what to do",
        examples=["no feature group 'content_popularty'; did you mean 'content_popularity'?"],
    )
    nearest: str | None = Field(default=None, description="the known name nearest to the one received")
    errors: list[dict[str, Any]] | None = Field(default=None, description="one entry for each parameter at fault")


class ProblemError(Exception):
    """Raised by an endpoint to answer with a problem."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        nearest: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.problem = Problem(title=status.phrase, status=status, detail=detail, nearest=nearest)


def unknown_name(kind: str, received: str, known: Iterable[str], status: HTTPStatus) -> ProblemError:
    """A name nobody knows, answered with the nearest one that is known."""
    names = sorted(known)
    close = difflib.get_close_matches(received[:SHOWN_LETTERS], names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    return ProblemError(status, f"no {kind} {_shown(received)}; {hint}", close[0] if close else None)


def install(api: FastAPI) -> None:
    """Make every error of `api` a problem, but those that nobody foresaw: `watch.middleware` sees to them."""
    api.add_exception_handler(ProblemError, _answer_problem)
    api.add_exception_handler(RequestValidationError, _answer_invalid)
    api.add_exception_handler(HTTPException, _answer_http)


def responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """How an endpoint declares its problems in OpenAPI."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def respond(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The HTTP response of a problem."""
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def unexpected() -> Problem:
    """What is said of a failure that nobody foresaw."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return Problem(title=status.phrase, status=status, detail="the service failed; its log says why")


async def _answer_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return respond(error.problem, error.headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        {
            "parameter": ".".join(str(part) for part in fault["loc"]),
            "problem": fault["msg"],
            "received": _shown(fault.get("input")),
        }
        for fault in error.errors()
    ]
    first = faults[0]
    detail = f"{first['parameter']}: {first['problem']}; received {first['received']}"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return respond(Problem(title=status.phrase, status=status, detail=detail, errors=faults))


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    said = status.description if error.detail == status.phrase else error.detail
    detail = f"{request.method} {_shown(request.url.path)}: {said or status.phrase}; see /docs"
    problem = Problem(title=status.phrase, status=status, detail=detail)
    return respond(problem, dict(error.headers) if error.headers else None)


def _shown(received: object) -> str:
    text = repr(received)
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable if len(printable) <= SHOWN_LETTERS else f"{printable[:SHOWN_LETTERS]}…"
