"""`/get-online-features`, over the API in this process, and by Feast's own remote client over a port."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import uvicorn
from fastapi import FastAPI
from feast import FeatureStore
from feast.infra.online_stores.remote import RemoteOnlineStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from features.groups.content_popularity import CONTENT_POPULARITY
from features.groups.user_viewing_history import USER_VIEWING_HISTORY
from features.pseudonyms import Pseudonymizer
from pipelines.feast.repository import feast_objects
from serving import problems
from serving.access import Access
from serving.feast_api import SERVICES, feast_routes
from serving.feature_lookup import FeatureLookup
from serving.features_api import feature_routes
from serving.online_store import open_online_store
from serving.settings import ServingSettings, TokenSettings
from serving.store_reader import StoreReader
from tests.serving import platform

SECRET = "0123456789abcdef0123456789abcdef"
VIEWING, POPULARITY = "user_viewing_history_by_profile_id", "content_popularity_by_content_id"
ONE_VIEW = f"personalization_{VIEWING}"
Ask = Callable[..., httpx.Response]


def token(**claims: Any) -> str:
    told = {"sub": "notebook", "aud": "reel", "exp": int(time.time()) + 600, "scope": "features", **claims}
    return jwt.encode(told, SECRET, "HS256")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = f"lmdb://{tmp_path_factory.mktemp('store')}/online"
    with open_online_store(address) as store:
        platform.fill(store)
    return address


def application(url: str, folder: Path) -> FastAPI:
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    chosen = ServingSettings(
        online_store_url=url, mlflow_tracking_uri="sqlite:///none", as_of="watermark", store_budget_ms=5000,
        tokens=TokenSettings(algorithm="HS256", secret_file=secret), max_keys=50,
    )  # fmt: skip
    app = FastAPI()
    problems.install(app)
    people = Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT))
    lookup = FeatureLookup(StoreReader(url, chosen.store_budget_ms), people, chosen)
    app.include_router(feature_routes(lookup, chosen, Access(chosen)))
    app.include_router(feast_routes(lookup, chosen, Access(chosen)))
    return app


@pytest.fixture(scope="module")
def app(url: str, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return application(url, tmp_path_factory.mktemp("service"))


def asker(app: FastAPI) -> Ask:
    def ask(body: Any, path: str = "/get-online-features", **claims: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://reel") as client:
                return await client.post(path, json=body, headers={"Authorization": f"Bearer {token(**claims)}"})

        return asyncio.run(once())

    return ask


@pytest.fixture(scope="module")
def ask(app: FastAPI) -> Ask:
    return asker(app)


def columns(answer: httpx.Response, field: str = "values") -> dict[str, list[Any]]:
    assert answer.status_code == 200, answer.text
    said = answer.json()
    names = said["metadata"]["feature_names"]
    return dict(zip(names, (one[field] for one in said["results"]), strict=True))


def test_the_values_are_those_of_the_other_endpoint_and_refused_people_are_not_found(ask: Ask) -> None:
    profiles = [*platform.PEOPLE, platform.UNDER_OLD_SALT, "profile-stranger", "profile-adult"]
    answer = ask({"feature_service": ONE_VIEW, "entities": {"profile_id": profiles}})
    other = ask(
        {"group": "user_viewing_history", "entity": "profile_id", "keys": profiles}, path="/v1/features"
    ).json()["rows"]
    values = columns(answer)
    assert values["profile_id"] == profiles
    assert list(values)[1:] == [feature.name for feature in USER_VIEWING_HISTORY.features]
    for name in list(values)[1:]:
        assert values[name] == [row["values"][name] for row in other], name
    assert answer.json()["reasons"] == [row["reason"] for row in other]
    statuses = dict(zip(profiles, columns(answer, "statuses")["recent_titles"], strict=True))
    assert statuses == {
        "profile-adult": "PRESENT",
        "profile-kid": "NOT_FOUND",
        "profile-refused": "NOT_FOUND",
        "profile-unasked": "NOT_FOUND",
        "profile-new": "NOT_FOUND",
        "profile-stale": "OUTSIDE_MAX_AGE",
        "profile-undescribed": "NOT_FOUND",
        platform.UNDER_OLD_SALT: "PRESENT",
        "profile-stranger": "NOT_FOUND",
    }
    assert columns(answer, "statuses")["avg_session_duration"][0] == "NULL_VALUE"
    refused = profiles.index("profile-refused")
    assert all(column[refused] is None for name, column in values.items() if name != "profile_id")
    instants = columns(answer, "event_timestamps")["recent_titles"]
    assert instants[0] == "2026-05-04T11:50:00.000Z"  # the last title ended 10 minutes before the watermark
    assert instants[refused] == "1970-01-01T00:00:00Z"


def test_a_service_of_several_views_and_a_list_with_full_names(ask: Ask) -> None:
    answer = ask({"feature_service": "personalization_by_content_id", "entities": {"content_id": ["title-05", "x"]}})
    values = columns(answer)
    assert values["hourly_viewers"] == [40, None]
    assert values["binge_rate"] == [None, None]
    assert answer.json()["reasons"] == [None, None]
    assert not answer.json()["degraded"]
    listed = ask(
        {
            "features": [f"{VIEWING}:completion_rate", f"{POPULARITY}:completion_rate"],
            "entities": {"content_id": ["title-05"], "profile_id": ["profile-adult"], "colour": ["red"]},
            "full_feature_names": True,
            "include_feature_view_version_metadata": True,
        },
        purpose="personalization",
    )
    assert columns(listed) == {
        "content_id": ["title-05"],
        "profile_id": ["profile-adult"],
        f"{VIEWING}__completion_rate": [0.75],
        f"{POPULARITY}__completion_rate": [0.75],
    }
    assert listed.json()["metadata"]["feature_view_metadata"] == [{"name": VIEWING}, {"name": POPULARITY}]


def test_an_entity_of_two_columns_has_one_key(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/online"
    with open_online_store(url) as store:
        store.put_many("meta", [("watermark_ms", b"0")])
        store.put_many("qoe_signals_by_cdn_region", [("a%2Fb/GB", b"damaged")])
    ask = asker(application(url, tmp_path))
    service = "personalization_by_cdn_region"
    unknown = ask({"feature_service": service, "entities": {"cdn": ["a", "b"], "region": ["b/GB", "GB"]}})
    assert columns(unknown, "statuses")["avg_qoe_score"] == ["NOT_FOUND", "NOT_FOUND"]
    assert columns(unknown)["region"] == ["b/GB", "GB"]
    stored = ask({"feature_service": service, "entities": {"region": ["GB"], "cdn": ["a/b"]}})
    assert columns(stored, "statuses")["avg_qoe_score"] == ["INVALID"]


def test_a_slow_store_or_none_is_said_and_nothing_is_made_up(tmp_path: Path) -> None:
    ask = asker(application(f"lmdb://{tmp_path}/nowhere", tmp_path))
    answer = ask({"feature_service": ONE_VIEW, "entities": {"profile_id": ["profile-adult"]}})
    assert answer.json()["degraded"]
    assert answer.json()["reasons"] == ["store_unavailable"]
    assert columns(answer, "statuses")["recent_titles"] == ["INVALID"]
    assert columns(answer)["recent_titles"] == [None]


words = st.one_of(st.text(max_size=120), st.sampled_from([*SERVICES, f"{VIEWING}:recent_titles", "profile_id", "cdn"]))
rubbish = st.one_of(st.none(), st.booleans(), st.integers(), words, st.lists(words, max_size=3))


@settings(max_examples=80, deadline=None)
@given(
    body=st.one_of(
        rubbish,
        st.fixed_dictionaries(
            {},
            optional={
                "entities": st.one_of(
                    rubbish, st.dictionaries(words, st.one_of(rubbish, st.lists(rubbish)), max_size=3)
                ),
                "feature_service": rubbish,
                "features": st.one_of(rubbish, st.lists(rubbish, max_size=3)),
                "full_feature_names": rubbish,
            },
        ),
    )
)
def test_whatever_is_sent_is_an_answer_or_a_problem(ask: Ask, body: Any) -> None:
    answer = ask(body, purpose="personalization")
    assert answer.status_code in (200, 403, 404, 422), answer.text
    assert answer.status_code == 200 or answer.json()["detail"]


def test_a_key_that_is_no_text_in_utf_8_is_refused(app: FastAPI) -> None:
    body = b'{"feature_service": "personalization_by_content_id", "entities": {"content_id": ["\\ud800"]}}'

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://reel") as client:
            headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
            return await client.post("/get-online-features", content=body, headers=headers)

    assert asyncio.run(once()).status_code == 422


def test_the_api_page_describes_it(app: FastAPI) -> None:
    described = app.openapi()["paths"]["/get-online-features"]["post"]
    assert described["security"] == [{"HTTPBearer": []}]
    assert {"200", "401", "403", "404", "422"} <= described["responses"].keys()
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/OnlineFeatures"}


PEOPLE = {"profile_id": ["profile-adult"]}


@pytest.mark.parametrize(
    ("body", "claims", "status", "said"),
    [
        ({"features": [f"{VIEWING}:recent_titles"], "entities": PEOPLE}, {}, 403, "no purpose is given"),
        ({"features": [f"{VIEWING}:recent_titles"], "entities": PEOPLE}, {"purpose": "fun"}, 403, "purpose is none of"),
        ({"features": [f"{VIEWING}:recent_titles"], "entities": PEOPLE}, {"purpose": "analytics"}, 403, "declared for"),
        ({"feature_service": ONE_VIEW, "entities": PEOPLE}, {"purpose": "ad_targeting"}, 403, "another purpose"),
        ({"feature_service": ONE_VIEW, "entities": PEOPLE}, {"scope": "recommendations"}, 403, "lacks 'features'"),
        ({"feature_service": ONE_VIEW, "entities": PEOPLE}, {"purpose": 7}, 401, "purpose is no text"),
        ({"feature_service": ONE_VIEW + "s", "entities": PEOPLE}, {}, 404, f"did you mean '{ONE_VIEW}'"),
        ({"features": ["viewing:x"], "entities": PEOPLE}, {}, 404, "no feature view 'viewing'"),
        ({"features": [f"{VIEWING}:recent_title"], "entities": PEOPLE}, {}, 404, "did you mean 'recent_titles'"),
        ({"features": [f"{VIEWING}@v2:recent_titles"], "entities": PEOPLE}, {}, 404, "no feature view"),
        ({"entities": PEOPLE}, {}, 422, "name a feature_service, or features"),
        ({"feature_service": ONE_VIEW, "entities": {}}, {}, 422, "needs the entities profile_id; received none"),
        ({"feature_service": ONE_VIEW, "entities": {"profile_id": []}}, {}, 422, "at least one"),
        ({"feature_service": ONE_VIEW, "entities": {"profile_id": [7]}}, {}, 422, "valid string"),
        ({"feature_service": ONE_VIEW, "entities": {"profile_id": ["a"] * 51}}, {}, 422, "at most 50 keys"),
        ({"feature_service": ONE_VIEW, "entities": {**PEOPLE, "x": ["a", "b"]}}, {}, 422, "as many keys"),
        (
            {"feature_service": "personalization_by_session_id", "entities": {"session_id": ["s"]}}, {}, 422,
            "no entity of qoe_signals_by_session_id 'session_id'",
        ),
        (
            {"features": [f"{VIEWING}:completion_rate", f"{POPULARITY}:completion_rate"],
             "entities": {**PEOPLE, "content_id": ["c"]}}, {"purpose": "personalization"}, 422, "asked for twice",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_a_problem_with_a_line(
    ask: Ask, body: dict[str, Any], claims: dict[str, Any], status: int, said: str
) -> None:
    answer = ask(body, **claims)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_a_value_of_another_version_is_never_misread_and_the_other_views_are_answered(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/online"
    with open_online_store(url) as store:
        platform.fill(store)
        stored = CONTENT_POPULARITY.stored_as("content_id")
        (value,) = store.get_many(stored, ["title-05"])
        assert value is not None
        store.put_many(stored, [("title-05", value[:5] + bytes(8) + value[13:])])
        store.put_many("content_engagement_by_content_id", [("title-05", b"damaged")])
    ask = asker(application(url, tmp_path))
    both = ask({"feature_service": "personalization_by_content_id", "entities": {"content_id": ["title-05"]}})
    assert both.json()["degraded"]
    assert both.json()["reasons"] == ["store_unavailable"]
    statuses = columns(both, "statuses")
    assert statuses.pop("viewers") == ["NOT_FOUND"]  # concurrent viewers, of which nothing was written
    assert {one for column in list(statuses.values())[1:] for one in column} == {"INVALID"}
    assert {one for column in list(columns(both).values())[1:] for one in column} == {None}
    mixed = ask(
        {
            "features": [f"{POPULARITY}:hourly_viewers", f"{VIEWING}:recent_titles"],
            "entities": {**PEOPLE, "content_id": ["title-05"]},
        },
        purpose="personalization",
    )
    assert columns(mixed, "statuses")["hourly_viewers"] == ["INVALID"]
    assert columns(mixed)["recent_titles"] == [platform.ADULT_HISTORY]


@pytest.fixture(scope="module")
def client(app: FastAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """Feast, with the online store `remote` and a token, against the API on a port of this machine."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    folder = tmp_path_factory.mktemp("client")
    (folder / "feature_store.yaml").write_text(
        "project: reel\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f"online_store: {{type: remote, path: 'http://127.0.0.1:{listener.getsockname()[1]}'}}\n"
        f"auth: {{type: oidc, token: '{token(purpose='personalization')}'}}\n"
    )
    try:
        store = FeatureStore(str(folder))
        store.apply(feast_objects())
        yield store
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def test_feasts_remote_client_works_unchanged(client: FeatureStore, ask: Ask) -> None:
    profiles = ["profile-adult", "profile-kid", "profile-stranger", platform.UNDER_OLD_SALT]
    rows = [{"profile_id": profile} for profile in profiles]
    service = client.get_feature_service(ONE_VIEW)
    answer = client.get_online_features(service, rows)
    said = answer.to_dict()
    assert said == columns(ask({"feature_service": ONE_VIEW, "entities": {"profile_id": profiles}}))
    assert said["recent_titles"] == [platform.ADULT_HISTORY, None, None, ["title-10"]]
    assert said["last_30_day_genres"][0] == {"drama": 1.0}
    place = list(answer.proto.metadata.feature_names.val).index("recent_titles")
    present, missing = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    assert list(answer.proto.results[place].statuses) == [present, missing, missing, present]
    listed = client.get_online_features([f"{POPULARITY}:hourly_viewers"], {"content_id": ["title-05", "none"]}, True)
    assert listed.to_dict() == {"content_id": ["title-05", "none"], f"{POPULARITY}__hourly_viewers": [40, None]}
    with pytest.raises(RuntimeError, match="404"):
        client.get_online_features(["unknown_view:x"], rows)


def test_the_remote_store_reads_view_by_view_too(client: FeatureStore) -> None:
    keys = [
        EntityKey(join_keys=["content_id"], entity_values=[Value(string_val=name)]) for name in ("title-05", "none")
    ]
    view = client.get_feature_view(POPULARITY)
    (at, values), (_, nothing) = RemoteOnlineStore().online_read(client.config, view, keys, ["hourly_viewers"])
    assert at is not None
    assert values == {"hourly_viewers": Value(int64_val=40)}
    assert nothing == {"hourly_viewers": Value()}


def test_the_services_names_are_those_of_the_repository(client: FeatureStore) -> None:
    assert {one.name: one.tags["purpose"] for one in client.list_feature_services()} == {
        name: str(one.purpose) for name, one in SERVICES.items()
    }
