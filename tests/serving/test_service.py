"""The service over real HTTP: `python -m serving` with Ray Serve, HAProxy, LMDB and MLflow, one for all tests here."""

import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models.recommendation.recommender import Recommender
from serving.online_store import open_online_store
from tests.serving import platform, registry
from tests.serving.platform import ADULT_HISTORY, KIDS_TITLES, POPULAR, UNDER_OLD_SALT, WATERMARK
from tests.serving.service_process import ServiceProcess, processes_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


NOT_TEXT = b"\xff\xfe\x00"
SLOW = {"model_slow", "store_slow"}


@dataclass(frozen=True)
class World:
    """A running service, and all that it stands on."""

    service: ServiceProcess
    store_folder: Path
    tracking_uri: str
    syslog: socket.socket
    client: httpx.Client


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("service")
    store_folder = folder / "online"
    with open_online_store(f"lmdb://{store_folder}") as store:
        platform.fill(store)
    syslog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    syslog.bind(("127.0.0.1", 0))
    syslog.setblocking(False)
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    settings = {
        "online_store_url": f"lmdb://{store_folder}",
        "mlflow_tracking_uri": tracking_uri,
        "as_of": "watermark",
        "port": 0,
        "model_refresh_s": 0.5,
        "popular_refresh_s": 0.2,
        "syslog": f"127.0.0.1:{syslog.getsockname()[1]}",
        # Others use these processors too: budgets that a busy machine keeps.
        "store_budget_ms": 2000,
        "deadline_ms": 5000,
    }
    with (
        ServiceProcess(folder, settings, {"REEL_SALT": platform.SALTS}) as service,
        httpx.Client(base_url=service.address, timeout=30) as client,
    ):
        yield World(service, store_folder, tracking_uri, syslog, client)
    syslog.close()


@pytest.fixture(scope="module")
def client(world: World) -> httpx.Client:
    return world.client


@pytest.fixture(scope="module")
def champion(world: World, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """The model in service, from the first test that asks for it."""
    folder = tmp_path_factory.mktemp("model") / "first"
    recommender = registry.make_recommender(folder, seed=1)
    version = registry.publish(world.tracking_uri, folder)
    await_answer(world.client, "profile-adult", lambda answer: answer["model_version"] == version)
    return recommender


def recommend(client: httpx.Client, profile: str, **parameters: Any) -> dict[str, Any]:
    response = client.get("/v1/recommendations", params={"profile_id": profile} | parameters)
    assert response.status_code == 200, response.text
    return response.json()


def in_time(client: httpx.Client, profile: str, **parameters: Any) -> dict[str, Any]:
    """An answer that was not cut short because the machine was busy."""
    while (answer := recommend(client, profile, **parameters))["reason"] in SLOW:
        time.sleep(0.2)
    return answer


def await_answer(client: httpx.Client, profile: str, is_right: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        answer = recommend(client, profile)
        if is_right(answer):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["content_id"] for item in answer["items"]]


# --- before there is a model ---------------------------------------------------------------------------------


def test_a_missing_model_is_a_popular_answer_that_says_so(client: httpx.Client) -> None:
    answer = recommend(client, "profile-adult", k=3)
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("popular", "model_unavailable", True)
    assert ids(answer) == POPULAR[:3]
    assert answer["audience"] == "all"
    assert answer["model_version"] is None


def test_it_said_where_it_answers_and_through_what(world: World) -> None:
    assert world.service.announcement == (
        f"Reel answers on {world.service.address}; API page {world.service.address}/docs (ingress: haproxy)"
    )


# --- recommendations -----------------------------------------------------------------------------------------


def test_the_model_answers_a_known_viewer_with_titles(client: httpx.Client, champion: Recommender) -> None:
    answer = recommend(client, "profile-adult", k=5)
    ((*expected,),) = champion.recommend([ADULT_HISTORY], 5)
    assert ids(answer) == [content_id for content_id, _ in expected]
    assert [item["score"] for item in answer["items"]] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert not set(ids(answer)) & set(ADULT_HISTORY)
    for item in answer["items"]:
        is_known = item["content_id"] != "title-13"
        assert item["title"] == (f"The {item['content_id']}" if is_known else None)
        assert item["genres"] == (["drama"] if is_known else [])
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("model", None, False)
    assert answer["model"] == "recommendation"
    assert datetime.fromisoformat(answer["as_of"]) == WATERMARK


def test_k_may_be_more_than_there_are_titles(client: httpx.Client, champion: Recommender) -> None:
    answer = recommend(client, "profile-adult", k=100)
    assert len(ids(answer)) == len(platform.TITLES) - len(ADULT_HISTORY)


def test_the_users_id_may_be_named_too(client: httpx.Client, champion: Recommender) -> None:
    assert recommend(client, "profile-adult", user_id="user-adult")["source"] == "model"


def test_a_viewer_stored_under_an_older_salt_is_found(client: httpx.Client, champion: Recommender) -> None:
    answer = recommend(client, UNDER_OLD_SALT)
    assert answer["source"] == "model"
    assert ids(answer) == [content_id for content_id, _ in champion.recommend([["title-10"]], 10)[0]]


@pytest.mark.parametrize(
    ("profile", "parameters", "reason"),
    [
        ("profile-stranger", {}, "unknown_viewer"),
        ("profile-undescribed", {}, "unknown_viewer"),
        ("profile-refused", {}, "consent_refused"),
        ("profile-refused", {"market": "US"}, "consent_refused"),
        ("profile-unasked", {}, "consent_unknown"),
        ("profile-unasked", {"market": "DE"}, "consent_unknown"),
        ("profile-new", {}, "no_history"),
        ("profile-stale", {}, "no_history"),
        ("profile-adult", {"user_id": "user-refused"}, "profile_of_another_user"),
        ("profile-refused", {"user_id": "user-adult"}, "profile_of_another_user"),
    ],
)
def test_who_gets_nothing_personal_gets_popular_titles_and_is_told_why(
    client: httpx.Client, champion: Recommender, profile: str, parameters: dict[str, str], reason: str
) -> None:
    answer = recommend(client, profile, k=4, **parameters)
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("popular", reason, False)
    assert ids(answer) == POPULAR[:4]
    assert [item["score"] for item in answer["items"]] == [100, 99, 98, 97]
    assert answer["model_version"] is None


def test_nobody_asked_in_an_opt_out_market_is_personal(client: httpx.Client, champion: Recommender) -> None:
    assert recommend(client, "profile-unasked", market="US")["source"] == "model"


def test_a_child_gets_popular_titles_for_children(client: httpx.Client, champion: Recommender) -> None:
    answer = recommend(client, "profile-kid", k=10, user_id="user-adult")
    assert (answer["source"], answer["reason"], answer["audience"]) == ("popular", "kids_profile", "kids")
    assert ids(answer) == KIDS_TITLES


# --- features ------------------------------------------------------------------------------------------------


def features(client: httpx.Client, **parameters: str) -> dict[str, Any]:
    response = client.get("/v1/features", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_profiles_features(client: httpx.Client) -> None:
    answer = features(client, group="user_viewing_history", profile_id="profile-adult")
    assert answer["found"]
    assert answer["values"]["recent_titles"] == ADULT_HISTORY
    assert answer["values"]["preferred_content_type"] == "vod"
    assert answer["values"]["completion_rate"] == 0.75  # three of four
    assert answer["values"]["last_30_day_genres"] == {"drama": 1.0}
    assert answer["age_ms"] == 600_000
    assert datetime.fromisoformat(answer["as_of"]) == WATERMARK
    assert (answer["key"], answer["entity"], answer["reason"]) == ("profile-adult", "profile_id", None)


def test_a_users_features_and_a_titles(client: httpx.Client) -> None:
    assert features(client, group="user_viewing_history", user_id="user-adult")["found"]
    answer = features(client, group="content_popularity", content_id="title-05")
    assert answer["values"] == {
        "hourly_viewers": 40,
        "daily_unique_viewers": 100,
        "completion_rate": 0.75,
        "trending_velocity": 1.5,
    }
    assert answer["age_ms"] == 3_601_000


def test_an_unknown_key_is_an_answer_of_nulls(client: httpx.Client) -> None:
    answer = features(client, group="content_popularity", content_id="title-99")
    assert not answer["found"]
    assert set(answer["values"].values()) == {None}
    assert answer["reason"] is None
    assert answer["age_ms"] is None


@pytest.mark.parametrize(
    ("key", "more", "reason"),
    [
        ({"profile_id": "profile-kid"}, {}, "kids_profile"),
        ({"profile_id": "profile-undescribed"}, {}, "unknown_viewer"),
        ({"profile_id": "profile-refused"}, {}, "consent_refused"),
        ({"user_id": "user-refused"}, {}, "consent_refused"),
        ({"user_id": "user-unasked"}, {}, "consent_unknown"),
        ({"profile_id": "profile-adult"}, {"purpose": "ad_targeting"}, "consent_refused"),
        ({"profile_id": "profile-adult"}, {"purpose": "essential"}, "purpose_not_permitted"),
        ({"profile_id": "profile-adult"}, {"purpose": "content_safety"}, "purpose_not_permitted"),
        # analytics is allowed, but what is asked for was made for personalization
        ({"profile_id": "profile-refused"}, {"purpose": "analytics"}, "consent_refused"),
    ],
)
def test_without_the_right_consent_no_feature_is_shown(
    client: httpx.Client, key: dict[str, str], more: dict[str, str], reason: str
) -> None:
    answer = features(client, group="user_viewing_history", **key, **more)
    assert (answer["found"], answer["reason"], answer["age_ms"]) == (False, reason, None)
    assert set(answer["values"].values()) == {None}
    assert not answer["degraded"]


def test_many_keys_in_the_order_asked(client: httpx.Client) -> None:
    keys = ["profile-kid", "profile-adult", "profile-stranger", "profile-adult", UNDER_OLD_SALT]
    question = {"group": "user_viewing_history", "entity": "profile_id", "keys": keys}
    answer = client.post("/v1/features", json=question).raise_for_status().json()
    assert [row["key"] for row in answer["rows"]] == keys
    assert [row["reason"] for row in answer["rows"]] == ["kids_profile", None, "unknown_viewer", None, None]
    assert [row["values"]["recent_titles"] for row in answer["rows"]] == [
        None,
        ADULT_HISTORY,
        None,
        ADULT_HISTORY,
        ["title-10"],
    ]
    one = features(client, group="user_viewing_history", profile_id="profile-adult")
    assert {name: one[name] for name in answer["rows"][1]} == answer["rows"][1]


def test_a_thousand_keys_at_once(client: httpx.Client) -> None:
    keys = [f"title-{number:02d}" for number in range(1000)]
    question = {"group": "content_popularity", "entity": "content_id", "keys": keys}
    answer = client.post("/v1/features", json=question).raise_for_status().json()
    assert [row["key"] for row in answer["rows"] if row["found"]] == ["title-05"]


# --- what callers get wrong ----------------------------------------------------------------------------------


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    answer = response.json()
    assert answer["status"] == status
    assert answer["type"] == "about:blank"
    assert len(response.content) < 5000, "what was received is shown back only in part"
    return answer


def test_an_unknown_group_is_answered_with_the_nearest(client: httpx.Client) -> None:
    answer = problem(client.get("/v1/features?group=content_popularty&content_id=a"), 404)
    assert answer["nearest"] == "content_popularity"
    question = {"group": "user_viewing_histroy", "entity": "user_id", "keys": ["a"]}
    assert problem(client.post("/v1/features", json=question), 404)["nearest"] == "user_viewing_history"


def test_an_entity_the_group_has_not_is_refused(client: httpx.Client) -> None:
    problem(client.get("/v1/features?group=content_popularity&user_id=a"), 422)
    question = {"group": "user_viewing_history", "entity": "profile", "keys": ["a"]}
    assert problem(client.post("/v1/features", json=question), 422)["nearest"] == "profile_id"


@pytest.mark.parametrize(
    "query",
    [
        "k=-1", "k=0", "k=101", "k=1000000000", "k=99999999999999999999999", "k=ten", "k=1.5", "k=", "profile_id=",
        "profile_id=" + "x" * 101, "user_id=" + "x" * 5000, "market=" + "x" * 21,
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_named(client: httpx.Client, query: str) -> None:
    start = "" if query.startswith("profile_id") else "profile_id=profile-adult&"
    answer = problem(client.get(f"/v1/recommendations?{start}{query}"), 422)
    assert query.partition("=")[0] in answer["detail"]


def test_a_missing_or_doubled_key_is_named(client: httpx.Client) -> None:
    assert "profile_id" in problem(client.get("/v1/recommendations"), 422)["detail"]
    assert "received none" in problem(client.get("/v1/features?group=content_popularity"), 422)["detail"]
    both = "/v1/features?group=user_viewing_history&user_id=a&profile_id=b"
    assert "received user_id, profile_id" in problem(client.get(both), 422)["detail"]


@pytest.mark.parametrize("key", ["ü", "片 片", "a/b?c=d&e#f", "%00", "\x00", "' or 1=1", "😀" * 50, "..", "\n"])
def test_any_text_is_a_key(client: httpx.Client, key: str) -> None:
    assert recommend(client, key)["reason"] == "unknown_viewer"
    assert not features(client, group="content_popularity", content_id=key)["found"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"text"', b'{"group": 5}', NOT_TEXT,
        b'{"group": "content_popularity", "entity": "content_id", "keys": []}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": "title-05"}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": [1]}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": ["\\ud800"]}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": ["a"], "purpose": "profit"}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": ["' + b"x" * 500_000 + b'"]}',
        b'{"group": "content_popularity", "entity": "content_id", "keys": [' + b'"a",' * 1000 + b'"a"]}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_question_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/features", content=body, headers={"content-type": "application/json"})
    problem(response, 400 if body == NOT_TEXT else 422)


def test_a_body_of_a_megabyte_and_more_is_refused(client: httpx.Client) -> None:
    body = b'{"keys": ["' + b"x" * 1_100_000 + b'"]}'
    response = client.post("/v1/features", content=body, headers={"content-type": "application/json"})
    assert "1000000 bytes" in problem(response, 413)["detail"]
    assert client.get("/healthz").status_code == 200


def test_an_address_of_a_megabyte_does_no_harm(world: World) -> None:
    with httpx.Client(base_url=world.service.address, timeout=30) as client:
        response = client.get("/v1/recommendations", params={"profile_id": "x" * 60_000})
        assert 400 <= response.status_code < 500
    assert world.client.get("/healthz").status_code == 200


def test_an_unknown_address_or_method_is_a_problem(client: httpx.Client) -> None:
    problem(client.get("/v2/features"), 404)
    assert problem(client.delete("/v1/features"), 405)
    problem(client.get("/docs/assets/none.js"), 404)


# --- health and description ----------------------------------------------------------------------------------


def test_health_and_readiness(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_the_description_has_every_endpoint_its_problems_and_examples(client: httpx.Client) -> None:
    described = client.get("/openapi.json").raise_for_status().json()
    assert set(described["paths"]) == {
        "/v1/features",
        "/get-online-features",
        "/v1/recommendations",
        "/v1/churn",
        "/v1/cdn/route",
        "/v1/cdn/outcomes",
        "/v1/anomalies",
        "/v1/models",
        "/v1/models/{name}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    recommending = described["paths"]["/v1/recommendations"]["get"]
    assert recommending["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert described["paths"]["/v1/features"]["get"]["responses"]["404"]["description"] == "Not Found"
    properties = described["components"]["schemas"]["ManyKeysQuestion"]["properties"]
    assert all("examples" in properties[name] for name in ("group", "entity", "keys"))


def test_the_api_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").raise_for_status().text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page
        assert len(client.get(f"/docs/assets/{asset}").raise_for_status().content) > 500


# --- many at once --------------------------------------------------------------------------------------------


def test_fifty_requests_at_once_each_get_their_own_answer(world: World, champion: Recommender) -> None:
    expected = {profile: in_time(world.client, profile, k=7) for profile in platform.PEOPLE}
    profiles = [list(platform.PEOPLE)[number % len(expected)] for number in range(200)]

    def ask(profile: str) -> dict[str, Any]:
        with httpx.Client(base_url=world.service.address, timeout=60) as own:
            return recommend(own, profile, k=7)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(ask, profiles))
    for profile, right in expected.items():  # each by itself: a slow model cuts short the answers of some only
        own_answers = [answer for asker, answer in zip(profiles, answers, strict=True) if asker == profile]
        told = [answer for answer in own_answers if answer["reason"] not in SLOW]
        assert len(told) >= len(own_answers) / 2, f"fifty at once are too many for most answers of {profile}"
        for answer in told:
            assert (ids(answer), answer["reason"]) == (ids(right), right["reason"])


# --- what changes under it -----------------------------------------------------------------------------------


def test_withdrawn_consent_and_erasure_hold_at_the_next_request(world: World, champion: Recommender) -> None:
    people = platform.Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT))
    hashed = people.hash("user-adult")
    with open_online_store(f"lmdb://{world.store_folder}") as store:
        (before,) = store.get_many("consents", [hashed])
        assert before is not None
        store.put_many(
            "consents",
            [(hashed, before.replace(b'"allows_personalization": true', b'"allows_personalization": false'))],
        )
        assert recommend(world.client, "profile-adult")["reason"] == "consent_refused"
        store.put_many("consents", [(hashed, before)])
        assert recommend(world.client, "profile-adult")["source"] == "model"
        store.delete_entity(people.hash("profile-adult"))
        assert recommend(world.client, "profile-adult")["reason"] == "unknown_viewer"
        platform.fill(store)
    assert recommend(world.client, "profile-adult")["source"] == "model"


def test_a_new_champion_is_taken_without_an_answer_lost(world: World, champion: Recommender, tmp_path: Path) -> None:
    before = recommend(world.client, "profile-adult")
    second = registry.make_recommender(tmp_path / "second", seed=2)
    version = registry.publish(world.tracking_uri, tmp_path / "second")
    seen = {before["model_version"]}
    while version not in seen:
        answer = recommend(world.client, "profile-adult")
        assert answer["source"] == "model"
        seen.add(answer["model_version"])
    assert seen == {before["model_version"], version}
    assert ids(recommend(world.client, "profile-adult")) == [
        content_id for content_id, _ in second.recommend([ADULT_HISTORY], 10)[0]
    ]


def test_a_broken_champion_leaves_the_one_before_in_service(
    world: World, champion: Recommender, tmp_path: Path
) -> None:
    before = recommend(world.client, "profile-adult")
    registry.make_recommender(tmp_path / "broken", seed=3)
    (tmp_path / "broken" / "weights.pt").write_bytes(b"not weights")
    registry.publish(world.tracking_uri, tmp_path / "broken")
    time.sleep(2)  # several looks at the alias
    assert recommend(world.client, "profile-adult") == before
    registry.give(world.tracking_uri, before["model_version"])


def test_a_withdrawn_champion_answers_no_more(world: World, champion: Recommender) -> None:
    before = recommend(world.client, "profile-adult")
    registry.withdraw(world.tracking_uri)
    answer = await_answer(world.client, "profile-adult", lambda answer: answer["source"] == "popular")
    assert (answer["reason"], answer["degraded"]) == ("model_unavailable", True)
    registry.give(world.tracking_uri, before["model_version"])
    await_answer(world.client, "profile-adult", lambda answer: answer == before)


def test_a_value_of_another_version_of_the_group_is_a_degraded_answer(world: World, champion: Recommender) -> None:
    key = platform.Pseudonymizer((platform.NEW_SALT,)).hash("profile-adult")
    with open_online_store(f"lmdb://{world.store_folder}") as store:
        store.put_many("user_viewing_history_by_profile_id", [(key, b"REEL\x01otherver and then some")])
        answer = recommend(world.client, "profile-adult", k=2)
        assert (answer["reason"], answer["audience"], ids(answer)) == ("store_unavailable", "all", POPULAR[:2])
        values = features(world.client, group="user_viewing_history", profile_id="profile-adult")
        assert (values["reason"], values["degraded"]) == ("store_unavailable", True)
        platform.fill(store)
    assert recommend(world.client, "profile-adult")["source"] == "model"


def test_a_store_removed_under_it_degrades_and_comes_back(world: World, champion: Recommender) -> None:
    before = recommend(world.client, "profile-adult")
    shutil.rmtree(world.store_folder)
    answer = recommend(world.client, "profile-adult", k=10)
    # Whether it is a child cannot be known now, so the titles are those that a child may see.
    assert (answer["source"], answer["reason"], answer["degraded"]) == ("popular", "store_unavailable", True)
    assert (answer["audience"], ids(answer)) == ("kids", KIDS_TITLES)
    assert answer["as_of"] is None
    values = features(world.client, group="user_viewing_history", profile_id="profile-adult")
    assert (values["found"], values["reason"], values["degraded"]) == (False, "store_unavailable", True)
    assert set(values["values"].values()) == {None}
    ready = world.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    with open_online_store(f"lmdb://{world.store_folder}") as store:
        platform.fill(store)
    assert recommend(world.client, "profile-adult") == before
    assert world.client.get("/readyz").json()["status"] == "ready"


# --- nothing of it remains anywhere --------------------------------------------------------------------------


def test_no_id_of_a_person_is_in_any_log(world: World, champion: Recommender) -> None:
    for profile in platform.PLAIN_IDS:
        recommend(world.client, profile)
        features(world.client, group="user_viewing_history", user_id=profile)
    time.sleep(1)
    logged = b""
    while True:
        try:
            logged += world.syslog.recv(65_536)
        except BlockingIOError:
            break
    files = [file for file in world.service.ray_folder.rglob("*") if file.is_file() and "/logs/" in str(file)]
    assert any("serve" in str(file) for file in files)
    logged += b"".join(file.read_bytes() for file in files) + world.service.errors().encode()
    found = [name for name in (*platform.PLAIN_IDS, platform.NEW_SALT) if name.encode() in logged]
    assert found == []


def test_it_does_not_stand_back_behind_whatever_else_runs(world: World) -> None:
    service = psutil.Process(world.service.pid)
    answering = [one for one in service.children(recursive=True) if "ServeReplica" in " ".join(one.cmdline())]
    assert answering
    assert {one.nice() for one in answering} == {service.nice()}


def test_it_stops_when_told_and_leaves_nothing_behind(world: World) -> None:
    """The last test of this file: the service is gone after it."""
    port = int(world.service.address.rpartition(":")[2])
    assert world.service.stop() == 0
    assert world.service.further_lines() == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    assert processes_of(world.service.ray_folder) == []
    shutil.rmtree(world.service.ray_folder, ignore_errors=True)
