"""The parts of what is seen of the service, each for itself: against arithmetic by hand and Prometheus's parser."""

import asyncio
import io
import json
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from features.packing import Values
from serving.settings import ServingSettings
from serving.watch import answers, deadline, measures, scrape, trace
from serving.watch.answers import Said
from serving.watch.log import JsonLines
from serving.watch.middleware import WatchRequests
from serving.watch.request import Watcher

# --- what an answer says -------------------------------------------------------------------------------------


def body(answer: object) -> bytes:
    return bytes(JSONResponse(answer).body)


def test_an_answer_is_read_for_what_it_says_of_itself() -> None:
    recommended = {"items": [], "reason": "store_slow", "degraded": True, "model": None, "model_version": None}
    assert answers.read(body(recommended)) == Said(True, ("store_slow",))
    ranked = recommended | {"reason": None, "degraded": False, "model": "recommendation", "model_version": "3"}
    assert answers.read(body(ranked)) == Said(False, (), "recommendation", "3")
    rows = {"degraded": False, "rows": [{"reason": "kids_profile"}, {"reason": None}, {"reason": "kids_profile"}]}
    assert answers.read(body(rows)) == Said(False, ("kids_profile",))
    feast = {"results": [], "degraded": False, "reasons": ["unknown_viewer", None, "consent_refused"]}
    assert answers.read(body(feast)) == Said(False, ("consent_refused", "unknown_viewer"))
    assert answers.read(body({"status": "ok"})) == Said()


@given(
    st.text()
    | st.sampled_from(['"degraded":true', '","reason":"kids_profile', '"reasons":["a"]', '\\"degraded\\":true'])
)
def test_what_a_caller_sent_cannot_pass_for_it(text: str) -> None:
    assert answers.read(body({"key": text, "values": {"x": [text]}, "degraded": False, "reason": None})) == Said()


# --- deadlines -----------------------------------------------------------------------------------------------


@given(st.integers(1, 10**9 - 1))
def test_a_whole_number_of_milliseconds_is_a_deadline(ms: int) -> None:
    assert deadline.parse_ms(str(ms)) == ms


@given(st.text(max_size=12).filter(lambda text: not (text.isascii() and text.isdigit())))
def test_nothing_else_is(text: str) -> None:
    assert deadline.parse_ms(text) is None
    assert deadline.parse_ms("0") is None
    assert deadline.parse_ms("1000000000") is None


def test_a_deadline_shortens_and_never_lengthens() -> None:
    async def waits(timeout_s: float | None) -> tuple[float, float]:
        deadline.begin(timeout_s)
        return deadline.shortened(0.05), deadline.shortened(1000)

    assert asyncio.run(waits(None)) == (0.05, 1000)
    assert asyncio.run(waits(0.0)) == (0, 0)
    short, long = asyncio.run(waits(10))
    assert short == 0.05
    assert 0 < long <= 10


# --- traces --------------------------------------------------------------------------------------------------

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{ID}-{SPAN}-01"}, (ID, SPAN, 1)),
        ({"traceparent": f"00-{ID}-{SPAN}-00"}, (ID, SPAN, 0)),
        ({"traceparent": f"cc-{ID}-{SPAN}-09-and-what-comes-after-2026"}, (ID, SPAN, 1)),
        ({"trace_id": ID}, (ID, None, 1)),
        ({"trace_id": "4BF92F35-77B3-4DA6-A3CE-929D0E0E4736"}, (ID, None, 1)),
        ({"traceparent": "rubbish", "trace_id": ID}, (ID, None, 1)),
    ],
)
def test_the_callers_trace_is_taken(headers: dict[str, str], expected: tuple[str, str | None, int]) -> None:
    found = trace.of(headers)
    assert (found.trace_id, found.parent_id, found.flags) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"traceparent": ""}, {"traceparent": f"ff-{ID}-{SPAN}-01"}, {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{ID}-{'0' * 16}-01"}, {"traceparent": f"00-{ID.upper()}-{SPAN}-01"},
        {"trace_id": "0" * 32}, {"trace_id": "user-adult"}, {"trace_id": ID + "\n"},
    ],
)  # fmt: skip
def test_what_is_no_trace_is_replaced_by_a_new_one(headers: dict[str, str]) -> None:
    first, second = trace.of(headers), trace.of(headers)
    assert first.trace_id != second.trace_id
    assert len(bytes.fromhex(first.trace_id)) == 16
    assert ID not in (first.trace_id, second.trace_id)


# --- one scrape of many replicas -----------------------------------------------------------------------------


def test_a_scrape_has_each_metric_once_with_the_samples_of_every_replica() -> None:
    def replica(good: int, seconds: list[float]) -> CollectorRegistry:
        registry = CollectorRegistry()
        counter = Counter("asked", "Requests.", ("endpoint",), registry=registry)
        counter.labels("/a").inc(good)
        Gauge("busy", "Now.", registry=registry).set(good)
        took = Histogram("took_seconds", "Time.", buckets=(1, 2), registry=registry)
        for one in seconds:
            took.observe(one)
        return registry

    text = scrape.together({"one": replica(3, [0.5, 1.5]).collect(), "two": replica(4, [5]).collect()}).decode()
    assert text.count("# TYPE asked_total counter") == 1
    assert "_created" not in text
    samples = {
        (one.name, one.labels["replica"], one.labels.get("le")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert (samples["asked_total", "one", None], samples["asked_total", "two", None]) == (3, 4)
    assert [samples["took_seconds_bucket", "one", le] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert [samples["took_seconds_bucket", "two", le] for le in ("1.0", "2.0", "+Inf")] == [0, 0, 1]
    assert samples["took_seconds_sum", "two", None] == 5


def test_a_look_up_is_counted_by_its_values_nulls_and_median_age() -> None:
    def now() -> list[float | None]:
        names = ("values_total", "null_values_total", "unknown_keys_total", "age_seconds_sum", "age_seconds_count")
        return [measures.REGISTRY.get_sample_value(f"reel_feature_{name}", {"group": "of a test"}) for name in names]

    columns = {"a": [1, 0, None, None], "b": [None, "", None, None]}
    measures.served("of a test", Values(columns, [9000, 1000, 2000, None]))  # 0 and "" are values
    assert now() == [6, 3, 1, 2.0, 1]
    measures.served("of a test", Values({"a": [None]}, [None]))
    assert now() == [6, 3, 2, 2.0, 1]


# --- the middleware ------------------------------------------------------------------------------------------

SETTINGS = {"online_store_url": "lmdb:///nowhere", "mlflow_tracking_uri": "sqlite:////nowhere/m.db"}


def through(app: object, settings: dict[str, object], *headers: tuple[bytes, bytes], count: int = 1) -> list[Response]:
    """What `count` requests at once are answered by `app` behind the middleware."""
    watch = WatchRequests(app, Watcher(ServingSettings.model_validate(SETTINGS | settings)))  # type: ignore[arg-type]

    async def one() -> Response:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/x", "headers": [*headers], "query_string": b""}
        await watch(scope, receive, send)
        start, *rest = sent
        answer = Response(b"".join(message.get("body", b"") for message in rest), start["status"])
        answer.raw_headers = start["headers"]
        return answer

    async def all_at_once() -> list[Response]:
        return await asyncio.gather(*(one() for _ in range(count)))

    return asyncio.run(all_at_once())


def problem(answer: Response, status: int) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert len(answer.headers["x-trace-id"]) == 32
    return str(json.loads(bytes(answer.body))["detail"])


async def waits_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def test_a_request_that_waits_for_ever_is_given_up_at_the_servers_limit_or_the_callers() -> None:
    (answer,) = through(waits_for_ever, {"request_limit_ms": 50})
    assert "50 ms" in problem(answer, 504)
    started_s = time.monotonic()
    (answer,) = through(waits_for_ever, {"request_limit_ms": 60_000}, (b"x-request-timeout-ms", b"20"))
    problem(answer, 504)
    assert time.monotonic() - started_s < 50
    (answer,) = through(waits_for_ever, {"request_limit_ms": 50}, (b"x-request-timeout-ms", b"999999"))
    assert "50 ms" in problem(answer, 504)


def test_more_than_are_worked_on_are_told_to_come_back() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.2)
        await JSONResponse({})(scope, receive, send)

    answers_given = through(slow, {"max_in_flight": 3}, count=10)
    assert [answer.status_code for answer in answers_given] == [200] * 3 + [503] * 7
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers_given[3:])
    problem(answers_given[-1], 503)


def test_a_full_queue_of_ray_serve_is_a_problem_that_says_when_to_come_back() -> None:
    (answer,) = through(PlainTextResponse("Request dropped due to backpressure", 503), {})
    assert "ask again" in problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_failure_is_500_without_a_word_of_what_it_was(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("of user-adult")  # not the middleware's own time-out

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("serving.watch.middleware")
    logger.addHandler(handler)
    try:
        (answer,) = through(fails, {})
    finally:
        logger.removeHandler(handler)
    assert "user-adult" not in problem(answer, 500)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["exception"]["type"]) == ("error", "TimeoutError")
    assert "test_parts.py" in line["exception"]["at"][-1]
    assert "user-adult" not in stream.getvalue()


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.25, 60, 140), (1.0, 400, 400)])
def test_a_share_of_good_answers_is_logged(
    caplog: pytest.LogCaptureFixture, share: float, fewest: int, most: int
) -> None:
    with caplog.at_level(logging.INFO, "serving.requests"):
        through(JSONResponse({"degraded": False}), {"log_requests": share, "max_in_flight": 400}, count=400)
    assert fewest <= len(caplog.records) <= most
    caplog.clear()
    with caplog.at_level(logging.INFO, "serving.requests"):
        through(JSONResponse({"degraded": True, "reason": "store_slow"}), {"log_requests": share}, count=5)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
