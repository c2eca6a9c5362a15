"""One request as it is watched, HTTP or gRPC: let in or turned away, timed, counted, logged, part of a trace."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from serving.problems import ProblemError
from serving.settings import ServingSettings
from serving.watch import deadline, measures
from serving.watch.answers import Said
from serving.watch.trace import Trace, of, request_span

UNROUTED = "unrouted"
"""The endpoint of a request that found none, or was turned away before."""
CLIENT_GONE = 499
RETRY_AFTER_S = 1
_CAUSES = {429: "rate_limited", 504: "too_slow"}

_log = logging.getLogger("serving.requests")


@dataclass
class Watched:
    """One request; whoever answers it fills in what became of it. `status` is HTTP's, for gRPC its equivalent."""

    method: str
    trace: Trace
    endpoint: str = UNROUTED
    status: int = CLIENT_GONE
    said: Said = field(default_factory=Said)


class Watcher:
    """Watches the requests of one process, and knows how many are under way. Of one event loop."""

    def __init__(self, settings: ServingSettings) -> None:
        self._most = settings.max_in_flight
        self._limit_s = settings.request_limit_ms / 1000
        self._logged_share = settings.log_requests
        self._in_progress = 0

    @contextmanager
    def watch(self, method: str, headers: Mapping[str, str]) -> Iterator[Watched]:
        """The request, whose `headers` have names in small letters; counted and logged at the end of the block."""
        watched = Watched(method, of(headers))
        started_s = time.perf_counter()
        with request_span(watched.trace, method) as span:
            try:
                yield watched
            finally:
                seconds = time.perf_counter() - started_s
                span.update_name(f"{method} {watched.endpoint}")
                span.set_attributes({"http.response.status_code": watched.status, "http.route": watched.endpoint})
                span.set_attributes({"reel.reason": watched.said.reasons, "reel.degraded": watched.said.degraded})
                _count(watched, seconds)
                self._write(watched, seconds)

    @asynccontextmanager
    async def limits(self, headers: Mapping[str, str]) -> AsyncIterator[None]:
        """What the block does has until the caller's deadline, at most until the server's.

        Raises ProblemError: 422 for a deadline that is none, 503 while too many requests are under way, 504.
        """
        limit_s = self._begin_deadline(headers.get(deadline.HEADER))
        if self._in_progress >= self._most:
            measures.TURNED_AWAY.labels(UNROUTED, "overloaded").inc()
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"too many requests are under way; ask again in {RETRY_AFTER_S} s",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._in_progress += 1
        measures.IN_PROGRESS.inc()
        try:
            async with asyncio.timeout(limit_s) as timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise ProblemError(
                HTTPStatus.GATEWAY_TIMEOUT, f"there was no answer within {limit_s * 1000:.0f} ms"
            ) from None
        finally:
            self._in_progress -= 1
            measures.IN_PROGRESS.dec()

    def _begin_deadline(self, asked: str | None) -> float:
        """In how many seconds the request is given up."""
        if asked is None:
            deadline.begin(None)
            return self._limit_s
        asked_ms = deadline.parse_ms(asked)
        if asked_ms is None:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "X-Request-Timeout-Ms must be a whole number of milliseconds from 1"
            )
        deadline.begin(asked_ms / 1000)
        return min(asked_ms / 1000 + deadline.ANSWERING_S, self._limit_s)

    def _write(self, watched: Watched, seconds: float) -> None:
        is_remarkable = watched.said.degraded or watched.status >= 429
        # By the trace, so that the requests that are kept are kept by every service on the way.
        if not (is_remarkable or watched.trace.is_among(self._logged_share)):
            return
        level = logging.ERROR if watched.status >= 500 else logging.WARNING if is_remarkable else logging.INFO
        _log.log(level, "request", extra={"fields": _fields(watched, seconds)})


def _count(watched: Watched, seconds: float) -> None:
    said, endpoint = watched.said, watched.endpoint
    measures.REQUESTS.labels(endpoint, watched.method, watched.status).inc()
    measures.DURATION.labels(endpoint, said.model, said.version).observe(seconds)
    for reason in said.reasons:
        measures.FALLBACKS.labels(endpoint, reason, str(said.degraded).lower()).inc()
    if watched.status in _CAUSES:
        measures.TURNED_AWAY.labels(endpoint, _CAUSES[watched.status]).inc()


def _fields(watched: Watched, seconds: float) -> dict[str, Any]:
    said = watched.said
    return {
        "endpoint": watched.endpoint,
        "method": watched.method,
        "status": watched.status,
        "duration_ms": round(seconds * 1000, 3),
        "trace_id": watched.trace.trace_id,
        "model": said.model or None,
        "version": said.version or None,
        "degraded": said.degraded,
        "reason": list(said.reasons),
    }
