"""What is seen of the running service, and what it does when a part of it is slow, gone or too busy."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.serving import platform
from tests.serving.platform import ADULT_HISTORY, KIDS_TITLES, POPULAR
from tests.serving.watch.watched import IN_FLIGHT, STORE_BUDGET_MS, Watched, kill, token, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own use of SQLAlchemy
]

HISTORY = {"group": "user_viewing_history", "profile_id": "profile-adult"}
VIEWER = {"profile_id": "profile-adult"}


@pytest.fixture
def client(watched: Watched) -> httpx.Client:
    return watched.client


@pytest.fixture
def slow_store(watched: Watched) -> Iterator[None]:
    """Each answer of Redis takes longer than the whole budget of a look-up."""
    watched.line.delay_s = STORE_BUDGET_MS / 1000 + 0.5
    yield
    watched.line.delay_s = 0.0
    until(lambda: ask(watched.client)["degraded"] is False)


def ask(client: httpx.Client, **headers: str) -> dict[str, Any]:
    answer = client.get("/v1/recommendations", params=VIEWER, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- ready, and measured -------------------------------------------------------------------------------------


def test_ready_says_which_model_answers(watched: Watched) -> None:
    answer = watched.client.get("/readyz").json()
    assert (answer["status"], answer["models"]) == ("ready", {"recommendation": watched.model_version})
    assert watched.client.get("/healthz").json() == {"status": "ok"}


def test_a_scrape_of_any_replica_adds_up_over_all(watched: Watched, client: httpx.Client) -> None:
    def counted() -> dict[str, float]:
        features, recommendations = {"endpoint": "/v1/features"}, {"endpoint": "/v1/recommendations"}
        model = {"model": "recommendation", "version": watched.model_version}
        return {
            "good": watched.total("reel_requests_total", **features, status="200"),
            "bad": watched.total("reel_requests_total", **features, status="404"),
            "timed": watched.total("reel_request_duration_seconds_count", **features),
            "by the model": watched.total("reel_request_duration_seconds_count", **recommendations, **model),
            "of children": watched.total("reel_fallback_answers_total", reason="kids_profile", degraded="false"),
            "nowhere": watched.total("reel_requests_total", endpoint="unrouted", status="404"),
            "values": watched.total("reel_feature_values_total", group="content_popularity"),
            "ages": watched.total("reel_feature_age_seconds_count", group="content_popularity"),
            "an hour old or less": watched.total(
                "reel_feature_age_seconds_bucket", group="content_popularity", le="3600.0"
            ),
            "a quarter of a day or less": watched.total(
                "reel_feature_age_seconds_bucket", group="content_popularity", le="21600.0"
            ),
            "nulls": watched.total("reel_feature_null_values_total", group="user_viewing_history"),
            "unknown": watched.total("reel_feature_unknown_keys_total", group="content_popularity"),
        }

    before = counted()
    nulls = 0
    # A connection each, so that both replicas are asked.
    for number in range(12):
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as one:
            keys = {"group": "content_popularity", "entity": "content_id", "keys": ["title-05", f"none-{number}"]}
            assert one.post("/v1/features", json=keys).status_code == 200
            assert one.get("/v1/features?group=nothing&content_id=a").status_code == 404
            answer = one.get("/v1/features", params=HISTORY).json()
            nulls += list(answer["values"].values()).count(None)
            assert one.get("/v1/recommendations", params=VIEWER).json()["source"] == "model"
            assert one.get("/v1/recommendations?profile_id=profile-kid").json()["reason"] == "kids_profile"
            assert one.get(f"/v1/profile-adult/{number}").status_code == 404
    expected = {
        "good": 24, "bad": 12, "timed": 36, "by the model": 12, "of children": 12, "nowhere": 12,
        "values": 4 * 12, "ages": 12, "an hour old or less": 0, "a quarter of a day or less": 12, "nulls": nulls,
        "unknown": 12,
    }  # fmt: skip
    until(lambda: {name: value - before[name] for name, value in counted().items()} == expected)
    samples = watched.samples()
    per_replica = [value for name, labels, value in samples if name == "reel_request_duration_seconds_count"
                   and labels["endpoint"] == "/v1/features" and value]  # fmt: skip
    assert len(per_replica) == 2, "only one replica was asked"
    said = {text for _, labels, _ in samples for text in labels.values()}
    assert not said & {*platform.PLAIN_IDS, *platform.TITLES}
    assert not [text for text in said if "profile-" in text or "/v1/profile" in text]


def test_an_endpoint_that_nobody_registered_for_it_is_measured_too(watched: Watched, client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in paths:
        client.get(path.replace("{", "").replace("}", ""))
    until(lambda: set(paths) <= {labels.get("endpoint") for _, labels, _ in watched.samples()})


# --- slow, gone, killed --------------------------------------------------------------------------------------


def test_a_store_slower_than_its_budget_is_an_answer_that_says_so(watched: Watched, slow_store: None) -> None:
    answer = ask(watched.client)
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("popular", "store_slow", True)
    assert [item["content_id"] for item in answer["items"]] == KIDS_TITLES
    row = watched.client.get("/v1/features", params=HISTORY).json()
    assert (row["reason"], row["degraded"], row["found"]) == ("store_slow", True, False)
    until(lambda: watched.total("reel_store_read_duration_seconds_count", outcome="slow") >= 2)
    until(lambda: watched.total("reel_fallback_answers_total", reason="store_slow", degraded="true") >= 2)


def test_a_caller_who_waits_less_long_is_answered_earlier(watched: Watched) -> None:
    watched.line.delay_s = 0.2  # several reads one after the other, all within the budget
    try:
        until(lambda: ask(watched.client)["source"] == "model")
        # Past the deadline there is a degraded answer, or 504 where even that took too long on a busy machine.
        shortened = {"X-Request-Timeout-Ms": "150"}

        def is_degraded() -> bool:
            answer = watched.client.get("/v1/recommendations", params=VIEWER, headers=shortened)
            assert answer.status_code in (200, 504), answer.text
            return answer.status_code == 200 and answer.json()["reason"] == "store_slow"

        until(is_degraded)
    finally:
        watched.line.delay_s = 0.0


@pytest.mark.parametrize("text", ["0", "-5", "soon", "1.5", "1e3", "", "9999999999", "٣"])
def test_a_deadline_that_is_none_is_named(client: httpx.Client, text: str) -> None:
    headers = {b"X-Request-Timeout-Ms": text.encode()}
    answer = client.get("/v1/recommendations", params=VIEWER, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_a_store_that_is_gone_is_an_answer_that_says_so(watched: Watched) -> None:
    watched.line.cut()
    try:
        answer = ask(watched.client)
        assert (answer["reason"], answer["degraded"]) == ("store_unavailable", True)
        assert watched.client.get("/readyz").json()["status"] == "degraded"
    finally:
        watched.line.mend()
    until(lambda: ask(watched.client)["source"] == "model")


def test_a_store_slow_for_many_is_shed_by_503_and_health_still_answers(watched: Watched, slow_store: None) -> None:
    def one(_: int) -> httpx.Response:
        with httpx.Client(base_url=watched.client.base_url, headers=watched.client.headers, timeout=60) as own:
            return own.get("/v1/features", params=HISTORY)

    with ThreadPoolExecutor(6 * IN_FLIGHT) as threads:
        asked = threads.map(one, range(6 * IN_FLIGHT))
        assert watched.client.get("/healthz", timeout=30).status_code == 200
        answers = list(asked)
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["degraded"]
        else:
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) >= 1
    shed = sum(answer.status_code == 503 for answer in answers)
    until(lambda: watched.total("reel_turned_away_requests_total", cause="overloaded") >= shed)


def test_a_replica_and_a_model_killed_under_load_cost_no_request(watched: Watched) -> None:
    failed: list[str] = []
    reasons: set[str | None] = set()
    answered = threading.Semaphore(0)
    is_over = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=watched.client.base_url, headers=watched.client.headers, timeout=60) as own:
            while not is_over.is_set():
                try:
                    answer = own.get("/v1/recommendations", params=VIEWER)
                except httpx.HTTPError as error:
                    failed.append(repr(error))
                    continue
                if answer.status_code != 200 or not answer.json()["items"]:
                    failed.append(answer.text)
                    continue
                said = answer.json()
                reasons.add(said["reason"] if said["degraded"] == (said["source"] == "popular") else "wrong")
                answered.release()

    before = watched.replicas()
    assert len(before) == 2
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            threads.submit(keep_asking)
        try:
            for _ in range(20):
                assert answered.acquire(timeout=60)
            kill(min(before))
            for model in watched.models():
                kill(model)
            until(lambda: reasons & {"model_unavailable", "model_slow"})
            until(lambda: len(watched.replicas() - before) == 1)
            until(lambda: ask(watched.client)["source"] == "model")
        finally:
            is_over.set()
    assert failed == []
    assert reasons <= {None, "model_unavailable", "model_slow"}
    until(lambda: len({labels["replica"] for _, labels, _ in watched.samples()}) >= 2)


# --- logs and traces -----------------------------------------------------------------------------------------


def test_each_answer_is_a_line_of_json_without_a_person_in_it(watched: Watched, client: httpx.Client) -> None:
    traces = {}
    for profile in platform.PLAIN_IDS:
        answer = client.get("/v1/recommendations", params={"profile_id": profile})
        traces[answer.headers["X-Trace-Id"]] = ("/v1/recommendations", 200)
        answer = client.get(f"/v1/features/{profile}", params={"user_id": profile})
        traces[answer.headers["X-Trace-Id"]] = ("unrouted", 404)
    refused = token("somebody", scope="nothing")
    answer = client.get("/v1/recommendations", params=VIEWER, headers={"Authorization": f"Bearer {refused}"})
    traces[answer.headers["X-Trace-Id"]] = ("/v1/recommendations", 403)

    def written() -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in watched.log().splitlines() if line.startswith(b'{"time": ')]
        return {line["trace_id"]: line for line in lines if line.get("trace_id") in traces}

    until(lambda: written().keys() == traces.keys())
    for trace_id, line in written().items():
        assert (line["endpoint"], line["status"]) == traces[trace_id]
        assert {"time", "level", "duration_ms", "version", "reason", "degraded"} <= line.keys()
    by_reason = {tuple(line["reason"]): line for line in written().values()}
    assert by_reason[()]["level"] in ("info", "warning")
    assert {("kids_profile",), ("consent_refused",), ("unknown_viewer",)} <= by_reason.keys()
    assert {line["version"] for line in written().values()} == {None, watched.model_version}
    logged = watched.log()
    secrets = [*platform.PLAIN_IDS, platform.NEW_SALT, refused, client.headers["Authorization"].split()[1]]
    assert [text for text in secrets if text.encode() in logged] == []


def test_an_answer_belongs_to_its_callers_trace(watched: Watched, client: httpx.Client) -> None:
    trace_id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = client.get("/v1/recommendations", params=VIEWER, headers={"traceparent": f"00-{trace_id}-{parent}-01"})
    assert answer.headers["X-Trace-Id"] == trace_id
    until(lambda: len(watched.collector.of(trace_id)) >= 4)
    spans = watched.collector.of(trace_id)
    (whole,) = [span for span in spans if span.name == "GET /v1/recommendations"]
    assert whole.parent_span_id.hex() == parent
    parts = [span for span in spans if span is not whole]
    assert {span.name for span in parts} == {"store", "model"}
    assert all(span.parent_span_id == whole.span_id for span in parts)
    assert all(
        whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= whole.end_time_unix_nano
        for span in parts
    )
    assert not any(name.encode() in span.SerializeToString() for span in spans for name in platform.PLAIN_IDS)


def test_the_trace_of_a_message_in_kafka_goes_on_to_the_answer(watched: Watched, client: httpx.Client) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer = client.get("/v1/features", params=HISTORY, headers={"trace_id": trace_id})
    assert answer.headers["X-Trace-Id"] == trace_id
    until(lambda: any(span.name == "GET /v1/features" for span in watched.collector.of(trace_id)))
    assert all(not span.parent_span_id for span in watched.collector.of(trace_id) if span.name.startswith("GET"))
    headers = {"traceparent": "rubbish", "trace_id": "profile-adult"}
    fresh = [client.get("/v1/features", params=HISTORY, headers=headers).headers["X-Trace-Id"] for _ in range(2)]
    assert len({*fresh, trace_id}) == 3


def test_after_all_that_it_answers_as_before(watched: Watched) -> None:
    answer = ask(watched.client)
    assert (answer["source"], answer["model_version"]) == ("model", watched.model_version)
    values = watched.client.get("/v1/features", params=HISTORY).json()["values"]
    assert values["recent_titles"] == ADULT_HISTORY
    refused = watched.client.get("/v1/recommendations?profile_id=profile-refused&k=3").json()
    assert [item["content_id"] for item in refused["items"]] == POPULAR[:3]
