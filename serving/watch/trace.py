"""The trace a request belongs to: the caller's, if it says one; and its spans, if somebody collects them.

`traceparent` (W3C Trace Context) names the trace and the span that asked. Whoever asks because of a message in Kafka
passes the message's header `trace_id` on under the same name, so that the trace goes from the event to the answer.
Spans are exported (OTLP over HTTP) only where `traces_url` is set; the id is in the log and in the answer always.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer

ANSWER_HEADER = "x-trace-id"
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

_root_id: ContextVar[int] = ContextVar("root_id")
_tracer: Tracer | None = None


@dataclass(frozen=True)
class Trace:
    """An id of 32 hexadecimal digits, and of the caller's span, where it said one: its id, and whether it is kept."""

    trace_id: str
    parent_id: str | None = None
    flags: int = 1

    def is_among(self, share: float) -> bool:
        """Whether it is one of a share of all, by its id: whoever chooses alike keeps the same ones."""
        return int(self.trace_id[:8], 16) < share * 2**32


def of(headers: Mapping[str, str]) -> Trace:
    """The trace that `headers` (names in small letters) say, else a new one."""
    return named_in(headers) or Trace(os.urandom(16).hex())


def named_in(headers: Mapping[str, str]) -> Trace | None:
    """The trace that `headers` (names in small letters) say."""
    parent = _PARENT.fullmatch(headers.get("traceparent", ""))
    if parent is not None and not parent[0].startswith("ff-") and int(parent[1], 16) and int(parent[2], 16):
        return Trace(parent[1], parent[2], int(parent[3], 16) & 1)
    carried = headers.get("trace_id", "").replace("-", "").lower()
    if _TRACE_ID.fullmatch(carried) and int(carried, 16):
        return Trace(carried)
    return None


def export_to(url: str | None) -> None:
    """From now on this process sends its spans to `url` (OTLP over HTTP, `…/v1/traces`); None: to nobody."""
    global _tracer
    if url is None:
        _tracer = None
        return
    _tracer = provider_to(url, "reel-serving").get_tracer("reel.serving")


def provider_to(url: str, service: str) -> TracerProvider:
    """Spans of a service, sent to `url` every second; one that is begun under `context_of` a trace belongs to it."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}), id_generator=_IdsOfRequests())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url), schedule_delay_millis=1000))
    return provider


def context_of(trace: Trace) -> Context:
    """In which this task's next span is begun: under the caller's span, or as the first one of the trace."""
    if trace.parent_id is None:
        _root_id.set(int(trace.trace_id, 16))
        return otel.set_span_in_context(otel.INVALID_SPAN)
    parent = SpanContext(
        int(trace.trace_id, 16), int(trace.parent_id, 16), is_remote=True, trace_flags=TraceFlags(trace.flags)
    )
    return otel.set_span_in_context(NonRecordingSpan(parent))


@contextmanager
def request_span(trace: Trace, name: str) -> Iterator[Span]:
    """The span of a whole request, under the caller's span."""
    if _tracer is None:
        yield otel.INVALID_SPAN
        return
    with _tracer.start_as_current_span(name, context_of(trace), SpanKind.SERVER, record_exception=False) as span:
        yield span


@contextmanager
def span(name: str) -> Iterator[Span]:
    """A part of the request under way. Exceptions are not recorded: their messages may hold what was asked."""
    if _tracer is None:
        yield otel.INVALID_SPAN
        return
    with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as part:
        yield part


class _IdsOfRequests(RandomIdGenerator):
    """A root span's trace is the one that the request belongs to."""

    def generate_trace_id(self) -> int:
        return _root_id.get(0) or super().generate_trace_id()
