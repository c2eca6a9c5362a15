"""What every HTTP request passes: watched, limited, and answered with a problem where everything else failed."""

import logging
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.problems import Problem, ProblemError
from serving.watch import answers, trace
from serving.watch.request import RETRY_AFTER_S, UNROUTED, Watched, Watcher

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# Answered however busy the process is: who asks these decides whether it lives, and learns why it is busy.
UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})

_log = logging.getLogger(__name__)


class WatchRequests:
    """ASGI middleware, the outermost: see the module."""

    def __init__(self, app: ASGIApp, watcher: Watcher) -> None:
        self._app = app
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        with self._watcher.watch(method, headers) as watched:
            answer = _Answer(send, watched)
            try:
                await self._answer(scope, receive, answer, headers)
            except ProblemError as error:
                await answer.instead(error.problem, error.headers, scope, receive)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets an answer
                _log.error("unexpected failure in %s", _endpoint(scope), exc_info=error)
                await answer.instead(problems.unexpected(), None, scope, receive)
            finally:
                watched.endpoint = _endpoint(scope)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer", headers: dict[str, str]) -> None:
        if scope["path"] in UNLIMITED:
            await self._app(scope, receive, answer.send)
        else:
            async with self._watcher.limits(headers):
                await self._app(scope, receive, answer.send)
        if answer.replaced is not None:
            await answer.instead(answer.replaced, {"Retry-After": str(RETRY_AFTER_S)}, scope, receive)


class _Answer:
    """What is sent: read on its way, with the trace's id; another's text for an error is kept back."""

    def __init__(self, send: Send, watched: Watched) -> None:
        self._send = send
        self._watched = watched
        self._is_started = False
        self._is_json = False
        self.replaced: Problem | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            kind = headers.get("content-type", "")
            self._is_json = kind.startswith("application/json")
            if message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR and "json" not in kind:
                self.replaced = _in_our_words(message["status"])
                return
            headers[trace.ANSWER_HEADER] = self._watched.trace.trace_id
            self._watched.status = message["status"]
            self._is_started = True
        elif self.replaced is not None:
            return
        elif message["type"] == "http.response.body" and self._is_json:
            self._watched.said = answers.read(message.get("body", b""))
        await self._send(message)

    async def instead(self, problem: Problem, headers: dict[str, str] | None, scope: Scope, receive: Receive) -> None:
        """Answer with `problem`, unless another answer has begun."""
        self.replaced = None
        if not self._is_started:
            await problems.respond(problem, headers)(scope, receive, self.send)


def _in_our_words(status: int) -> Problem:
    """Ray Serve's own refusals (a model's queue is full, no replica runs) are plain text."""
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        detail = f"what answers this is overloaded or not running; ask again in {RETRY_AFTER_S} s"
        return Problem(title=HTTPStatus.SERVICE_UNAVAILABLE.phrase, status=status, detail=detail)
    return problems.unexpected()


def _endpoint(scope: Scope) -> str:
    """The template of the route, of which there are few; never the address, which may hold anything."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else UNROUTED
