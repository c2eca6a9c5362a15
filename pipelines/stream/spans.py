"""Spans of messages on their way into values, in the traces that their headers name.

A span begins when a message is read and ends when the actor that read it has written all values of its batch; what was
done by when are its events. So a trace goes from whatever caused the message, by way of the values that it changed, to
the answers of whoever asks because of it. A span says where its message lies in Kafka, and nothing of what is in it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanKind

from pipelines.kafka.message import Headers, Messages
from serving.watch.trace import Trace, context_of, named_in, provider_to

_SERVICE, _NAME = "reel-stream", "stream"


@dataclass(frozen=True)
class Traced:
    """Who collects spans (OTLP over HTTP), and of which share of the traces, chosen by their ids."""

    url: str
    share: float


class MessageSpans:
    """Those of the batch under way; of none without `traced`."""

    def __init__(self, traced: Traced | None) -> None:
        self._share = 0.0 if traced is None else traced.share
        self._provider = None if traced is None else provider_to(traced.url, _SERVICE)
        self._open: list[Span] = []

    def begin(self, batch: Sequence[Messages]) -> None:
        """Messages have been read: a span for each that is in a trace, and chosen."""
        if self._provider is None:
            return
        tracer, at_ns = self._provider.get_tracer("reel.stream"), time.time_ns()
        for messages in batch:
            for place, trace in _traces(messages):
                if not trace.is_among(self._share):
                    continue
                where: dict[str, str | int] = {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": messages.topic,
                    "messaging.destination.partition.id": str(messages.partitions[place]),
                    "messaging.kafka.offset": int(messages.offsets[place]),
                }
                span = tracer.start_span(_NAME, context_of(trace), SpanKind.CONSUMER, where, start_time=at_ns)
                self._open.append(span)

    def note(self, what: str) -> None:
        """Something is done with all of them."""
        at_ns = time.time_ns()
        for span in self._open:
            span.add_event(what, timestamp=at_ns)

    def end(self) -> None:
        """Their values are written."""
        at_ns = time.time_ns()
        for span in self._open:
            span.end(at_ns)
        self._open = []

    def close(self) -> None:
        """Send what was not sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


def _traces(messages: Messages) -> Iterator[tuple[int, Trace]]:
    for place, headers in enumerate(messages.headers):
        if headers and (trace := named_in(_texts(headers))) is not None:
            yield place, trace


def _texts(headers: Headers) -> Mapping[str, str]:
    return {name: value.decode("ascii", "replace") for name, value in headers if value is not None}
