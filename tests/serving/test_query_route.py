"""An endpoint that is asked by its query string answers word for word as FastAPI's own route would."""

import time
from typing import Annotated

import jwt
import pytest
from fastapi import APIRouter, FastAPI, Query
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel

from features.purposes import Purpose
from serving import problems
from serving.access import Access
from serving.parameters import Id, Market
from serving.query_route import QueryRoute
from serving.settings import ServingSettings
from serving.tokens import SECRET_VARIABLE, Scope

SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = SECRET[::-1]
QUERIES = [
    "name=a",
    "name=a&k=3&purpose=analytics&market=DE",
    "name=%C3%A9%20%22&k=%203%20",
    "name=a&name=b",
    "name=a&unknown=1",
    "name=a&k=1.5",
    "name=a&k=",
    "name=a&k=999999999999999999999999",
    "name=a&purpose=spying",
    "name=a&market=" + "x" * 21,
    "name=",
    "name=" + "x" * 101,
    "k=3&market=DE",
    "",
    "k=three&purpose=spying",
    "name=%ff",
    "name=a&answered=1",
]


class Said(BaseModel):
    """What was understood, and a number that JSON does not have."""

    name: str
    k: int
    purpose: Purpose
    market: str | None
    share: float | None = None


def app(route_class: type[APIRoute], **settings: object) -> TestClient:
    chosen = ServingSettings.model_validate(
        {"online_store_url": "lmdb:///none", "mlflow_tracking_uri": "sqlite:///none", "as_of": "watermark", **settings}
    )
    router = APIRouter(route_class=route_class, dependencies=Access(chosen).to(Scope.FEATURES))

    @router.get("/asked")
    async def asked(
        name: Id,
        k: Annotated[int, Query(examples=[10])] = 10,
        purpose: Purpose = Purpose.PERSONALIZATION,
        market: Market = None,
    ) -> Said:
        """It says what it understood."""
        return Said(name=name, k=k, purpose=purpose, market=market, share=float("nan") if k == 3 else None)

    api = FastAPI()
    problems.install(api)
    api.include_router(router)
    return TestClient(api)


@pytest.mark.parametrize("query", QUERIES)
def test_answers_and_problems_are_those_of_fastapis_own_route(query: str) -> None:
    mine, theirs = (app(kind).get(f"/asked?{query}") for kind in (QueryRoute, APIRoute))
    assert (mine.status_code, mine.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    assert mine.text == theirs.text


def test_it_is_described_as_fastapi_describes_it() -> None:
    assert app(QueryRoute).get("/openapi.json").json() == app(APIRoute).get("/openapi.json").json()


def test_nobody_gets_in_whom_fastapis_own_route_keeps_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    claims = {"sub": "a", "aud": "reel", "exp": int(time.time()) + 60, "scope": "features"}
    tokens = {
        "good": jwt.encode(claims, SECRET, "HS256"),
        "another's key": jwt.encode(claims, OTHER_SECRET, "HS256"),
        "another scope": jwt.encode(claims | {"scope": "churn"}, SECRET, "HS256"),
        "expired": jwt.encode(claims | {"exp": 1}, SECRET, "HS256"),
        "unsigned": jwt.encode(claims, "", "none"),
    }
    headers = [{}, {"Authorization": "Basic YTpi"}, *({"Authorization": f"Bearer {one}"} for one in tokens.values())]
    clients = [app(kind, tokens={"algorithm": "HS256"}) for kind in (QueryRoute, APIRoute)]
    answers = [[client.get("/asked?name=a", headers=one) for client in clients] for one in headers]
    assert [mine.status_code for mine, _ in answers] == [401, 401, 200, 401, 403, 401, 401]
    for mine, theirs in answers:
        assert (mine.status_code, mine.text) == (theirs.status_code, theirs.text)
        assert mine.headers.get("www-authenticate") == theirs.headers.get("www-authenticate")


def test_a_caller_without_a_token_is_counted() -> None:
    client = app(QueryRoute, requests_per_s=1)
    assert [client.get("/asked?name=a").status_code for _ in range(2)] == [200, 429]
