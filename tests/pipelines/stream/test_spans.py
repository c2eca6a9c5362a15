"""Messages that are in a trace get a span in it, as long as they are on their way; what is in them is not told."""

import time

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contract.registry import open_registry
from pipelines.kafka.message import Messages
from pipelines.kafka.produce import Producer
from pipelines.stream.spans import MessageSpans, Traced
from serving.watch.trace import Trace
from tests.collector import Collector
from tests.pipelines.stream.test_worker import Together
from tests.platform import T0, Platform, consent, described, watched

TRACE, OTHER, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "80" + "0" * 29 + "1", "00f067aa0ba902b7"


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


def messages(*headers):
    count = len(headers)
    return Messages("client.playback", np.full(count, 3, np.int32), np.arange(7, 7 + count), [None] * count,
                    [b"secret"] * count, list(headers))  # fmt: skip


def header(trace_id):
    return [("producer", b"tests"), ("trace_id", trace_id.encode())]


def test_a_span_lasts_from_reading_to_the_end_of_the_batch(collector):
    spans, before_ns = MessageSpans(Traced(collector.url, 1)), time.time_ns()
    spans.begin([messages(None, header(TRACE))])
    spans.note("admitted")
    spans.note("logged")
    spans.end()
    spans.end()  # as of a checkpoint, in which no message is on its way
    spans.close()
    (span,) = collector.of(TRACE)
    assert span.name == "stream"
    assert span.kind == span.SPAN_KIND_CONSUMER
    assert span.parent_span_id == b""
    assert [event.name for event in span.events] == ["admitted", "logged"]
    instants = [before_ns, span.start_time_unix_nano, *(event.time_unix_nano for event in span.events)]
    assert sorted(instants) == instants
    assert span.events[-1].time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    told = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    assert told == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": "client.playback",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 8,
    }


def test_one_that_says_a_span_is_under_it(collector):
    spans = MessageSpans(Traced(collector.url, 1))
    spans.begin([messages([("traceparent", f"00-{OTHER}-{PARENT}-01".encode())], header(TRACE))])
    spans.end()
    spans.close()
    assert [one.parent_span_id.hex() for one in collector.of(OTHER)] == [PARENT]
    assert [one.parent_span_id.hex() for one in collector.of(TRACE)] == [""]


def test_what_is_no_trace_or_is_not_chosen_has_no_span(collector):
    assert (Trace(TRACE).is_among(0.3), Trace(TRACE).is_among(0.29)) == (True, False)  # 0x4b / 256 is .293
    assert (Trace(OTHER).is_among(0.51), Trace(OTHER).is_among(0.5)) == (True, False)
    spans = MessageSpans(Traced(collector.url, 0.4))
    rubbish = [("trace_id", None)], [("trace_id", b"\xff\xfe")], [], [("trace_id", b"")]
    spans.begin([messages(header(TRACE), header(OTHER), None, *rubbish)])
    spans.end()
    spans.close()
    assert len(collector.of(TRACE)) == 1
    assert collector.all() == collector.of(TRACE)


def test_without_a_collector_nothing_is_kept():
    spans = MessageSpans(None)
    spans.begin([messages(header(TRACE))])
    assert spans._open == []
    spans.note("admitted")
    spans.end()
    spans.close()


def test_a_trace_goes_from_the_header_in_kafka_to_the_value(tmp_path, collector):
    platform = Platform(tmp_path)
    platform.send(described("ann"), consent("ann", T0))
    stop = watched("ann", "vod-1", T0)[-1]
    registry = open_registry(platform.settings.registry_location)
    with Producer(platform.bootstrap, platform.contract, registry) as producer:
        schema = platform.contract.event(stop["event_name"])
        producer.produce(schema, pa.Table.from_pylist([stop], schema=schema.arrow), [header(TRACE)])
    together = Together(platform, tmp_path / "store", 1, traced=Traced(collector.url, 1))
    together.batch(100)
    for worker in together.workers:
        worker.close()
    (span,) = collector.of(TRACE)
    assert [event.name for event in span.events] == ["admitted", "logged"]
