"""Tokens: who is let in, and everything that is not a good token is refused, over the API itself."""

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI

from features.pseudonyms import Pseudonymizer
from serving import problems
from serving.access import Access, check_access
from serving.errors import ConfigurationError
from serving.feature_lookup import FeatureLookup
from serving.features_api import feature_routes
from serving.online_store import open_online_store
from serving.rate_limit import MOST_CALLERS, RateLimit
from serving.settings import ServingSettings, TokenSettings, parse_settings
from serving.store_reader import StoreReader
from serving.tokens import Caller, KeysUnavailableError, TokenRefusedError, TokenVerifier
from tests.serving import platform

SECRET = "0123456789abcdef0123456789abcdef"

QUESTION = {"group": "user_viewing_history", "profile_id": "profile-adult"}


def now_s() -> int:
    return int(time.time())


def good(**claims: Any) -> dict[str, Any]:
    """Claims that are let in, less those given as None."""
    told = {"sub": "portal", "aud": "reel", "exp": now_s() + 600, "scope": "features", **claims}
    return {name: value for name, value in told.items() if value is not None}


@pytest.fixture(scope="module")
def keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3)]


def jwks(*named: tuple[str, rsa.RSAPrivateKey]) -> str:
    algorithm = jwt.algorithms.RSAAlgorithm
    return json.dumps(
        {
            "keys": [
                {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"} for name, key in named
            ]
        }
    )


def signed(key: rsa.RSAPrivateKey, key_id: str | None = "one", **claims: Any) -> str:
    return jwt.encode(good(**claims), key, algorithm="RS256", headers={"kid": key_id} if key_id else None)


@pytest.fixture
def api(tmp_path: Path, keys: list[rsa.RSAPrivateKey]) -> Iterator[Any]:
    """Asks the look-up of features, in this process, with an Authorization header."""
    (tmp_path / "jwks.json").write_text(jwks(("one", keys[0]), ("two", keys[1])))
    url = f"lmdb://{tmp_path}/online"
    with open_online_store(url) as store:
        platform.fill(store)
    settings = ServingSettings(
        online_store_url=url,
        mlflow_tracking_uri="sqlite:///none",
        as_of="watermark",
        tokens=TokenSettings(algorithm="RS256", jwks=str(tmp_path / "jwks.json"), issuer=None),
        store_budget_ms=5000,
    )
    app = FastAPI()
    problems.install(app)
    reader = StoreReader(url, settings.store_budget_ms)
    lookup = FeatureLookup(reader, Pseudonymizer((platform.OLD_SALT, platform.NEW_SALT)), settings)
    app.include_router(feature_routes(lookup, settings, Access(settings)))

    def ask(authorization: str | None) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://reel") as client:
                headers = {} if authorization is None else {"Authorization": authorization}
                return await client.get("/v1/features", params=QUESTION, headers=headers)

        return asyncio.run(once())

    ask.app = app  # type: ignore[attr-defined]
    return ask


def test_a_good_token_is_answered_whichever_key_signed_it(api, keys):
    for key, key_id in ((keys[0], "one"), (keys[1], "two")):
        answer = api(f"Bearer {signed(key, key_id)}")
        assert answer.status_code == 200
        assert answer.json()["found"] is True
    several = signed(keys[0], aud=["other", "reel"], scope="recommendations features")
    assert api(f"Bearer {several}").status_code == 200


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """A token put together from RFC 7515 alone, so that what no library would sign can be tried."""

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    signature = b"" if secret is None else hmac.new(secret, body.encode(), hashlib.sha256).digest()
    return f"{body}.{part(signature)}"


def test_everything_else_is_401(api, keys, tmp_path):
    public = (tmp_path / "jwks.json").read_bytes()
    one, header = keys[0], {"alg": "RS256", "kid": "one"}
    refused = {
        "none": None,
        "empty": "",
        "basic": "Basic cmVlbDpyZWVs",
        "no token": "Bearer",
        "rubbish": "Bearer rubbish",
        "expired": f"Bearer {signed(one, exp=now_s() - 120)}",
        "no end": f"Bearer {signed(one, exp=None)}",
        "an end that is no time": f"Bearer {by_hand(header, good(exp='never'), None)}",
        "not yet": f"Bearer {signed(one, nbf=now_s() + 3600)}",
        "another service": f"Bearer {signed(one, aud='billing')}",
        "no service": f"Bearer {signed(one, aud=None)}",
        "nobody": f"Bearer {signed(one, sub=None)}",
        "another's key": f"Bearer {signed(keys[2])}",
        "the other key's name": f"Bearer {signed(one, 'two')}",
        "a key nobody knows": f"Bearer {signed(one, 'three')}",
        "no key, of two": f"Bearer {signed(one, None)}",
        "alg none": f"Bearer {by_hand({**header, 'alg': 'none'}, good(), None)}",
        "alg None": f"Bearer {by_hand({**header, 'alg': 'None'}, good(), None)}",
        "signed with the public key": f"Bearer {by_hand({**header, 'alg': 'HS256'}, good(), public)}",
        "no signature": f"Bearer {signed(one).rpartition('.')[0]}.",
        "a changed word": f"Bearer {signed(one)[:-8]}AAAAAAAA",
        "a megabyte": f"Bearer {'a' * 1_000_000}",
        "a megabyte of claims": f"Bearer {signed(one, note='x' * 1_000_000)}",
        "a scope that is no text": f"Bearer {signed(one, scope=['features'])}",
        "a key id that is no text": f"Bearer {by_hand({'alg': 'RS256', 'kid': ['one']}, good(), None)}",
    }
    for name, authorization in refused.items():
        answer = api(authorization)
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="reel"'), name
        assert answer.headers["Content-Type"] == "application/problem+json", name
        assert "Traceback" not in answer.text, name
        assert signed(one)[:40] not in answer.text, name
    assert "expired" in api(refused["expired"]).json()["detail"]


@pytest.mark.parametrize("scope", ["", "recommendations", "features2", "FEATURES", None])
def test_a_token_for_something_else_is_403(api, keys, scope):
    answer = api(f"Bearer {signed(keys[0], scope=scope)}")
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="features"' in answer.headers["WWW-Authenticate"]


def test_clocks_may_be_half_a_minute_apart(api, keys):
    assert api(f"Bearer {signed(keys[0], exp=now_s() - 5)}").status_code == 200
    assert api(f"Bearer {signed(keys[0], nbf=now_s() + 5)}").status_code == 200


def test_the_api_page_says_that_a_token_is_needed(api):
    described = api.app.openapi()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    asked = described["paths"]["/v1/features"]["get"]
    assert asked["security"] == [{"HTTPBearer": []}]
    assert {"401", "403"} <= asked["responses"].keys()


def caller(verifier: TokenVerifier, token: str) -> Caller:
    return asyncio.run(verifier.caller(token))


def test_one_secret_for_both_ends(tmp_path, keys):
    settings = TokenSettings(algorithm="HS256", issuer="laptop")
    verifier = TokenVerifier(settings, {"REEL_TOKEN_SECRET": SECRET})
    told = good(iss="laptop")
    assert caller(verifier, jwt.encode(told, SECRET, "HS256")) == Caller("portal", frozenset({"features"}))
    for bad in (jwt.encode(good(), SECRET, "HS256"), signed(keys[0]), jwt.encode(told, SECRET[::-1], "HS256")):
        with pytest.raises(TokenRefusedError):
            caller(verifier, bad)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"algorithm": "none"}, "tokens.algorithm"),
        ({"algorithm": "RS256"}, "needs jwks"),
        ({"algorithm": "HS256", "jwks": "keys.json"}, "needs jwks"),
        ({"algorithm": "RS256", "jwks": "http://keys"}, "must be https"),
        ({"algorithm": "RS256", "jwks": "k", "secret_file": "/s"}, "has no secret_file"),
        ({"algorithm": "HS256", "audiance": "x"}, "audiance"),
    ],
)
def test_wrong_settings_are_named(tree, said):
    told = {"online_store_url": "lmdb:///x", "mlflow_tracking_uri": "x", "tokens": tree}
    with pytest.raises(ConfigurationError, match=said):
        parse_settings(told, "serving.json")


def test_a_service_that_cannot_check_tokens_does_not_start(tmp_path, monkeypatch):
    monkeypatch.delenv("REEL_TOKEN_SECRET", raising=False)
    base = {"online_store_url": "lmdb:///x", "mlflow_tracking_uri": "x"}

    def refused(**told: Any) -> str:
        with pytest.raises(ConfigurationError) as caught:
            check_access(ServingSettings(**base, **told))
        return str(caught.value)

    assert "host 0.0.0.0 lets other machines ask" in refused(host="0.0.0.0")
    assert "set REEL_TOKEN_SECRET" in refused(tokens=TokenSettings(algorithm="HS256"))
    file = tmp_path / "secret"
    file.write_text(SECRET)
    assert "others may read" in refused(tokens=TokenSettings(algorithm="HS256", secret_file=file))
    file.chmod(0o600)
    check_access(ServingSettings(**base, tokens=TokenSettings(algorithm="HS256", secret_file=file)))
    file.write_text("short")
    assert "has 5 bytes" in refused(tokens=TokenSettings(algorithm="HS256", secret_file=file))
    for content in ("[]", "{", "{}", '{"keys": []}'):
        file.write_text(content)
        assert "cannot be read as a JWKS" in refused(tokens=TokenSettings(algorithm="RS256", jwks=str(file)))
    for host in ("127.0.0.1", "localhost", "::1"):
        check_access(ServingSettings(**base, host=host))


class Provider(http.server.BaseHTTPRequestHandler):
    """An identity provider whose keys can change, and which can be down."""

    keys = ""
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.keys else 503)
        self.end_headers()
        self.wfile.write(self.keys.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[str]:
    Provider.keys, Provider.asked = "", 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/keys"
        server.shutdown()


def test_a_providers_keys_are_fetched_when_needed_and_rotated(provider, keys, monkeypatch):
    # Without TLS, which the settings would refuse: what is tried here is when it is asked.
    settings = TokenSettings.model_construct(algorithm="RS256", jwks=provider, secret_file=None, audience="reel",
                                             issuer=None, leeway_s=30)  # fmt: skip
    verifier = TokenVerifier(settings)
    with pytest.raises(KeysUnavailableError, match="503"):
        caller(verifier, signed(keys[0]))
    monkeypatch.setattr("serving.tokens.REFETCH_S", 0.0)
    Provider.keys = jwks(("one", keys[0]))
    assert caller(verifier, signed(keys[0])).subject == "portal"
    assert caller(verifier, signed(keys[0])).subject == "portal"
    assert Provider.asked == 2
    Provider.keys = jwks(("one", keys[0]), ("two", keys[1]))
    assert caller(verifier, signed(keys[1], "two")).subject == "portal"
    monkeypatch.setattr("serving.tokens.REFETCH_S", 3600.0)
    for _ in range(20):
        with pytest.raises(TokenRefusedError):
            caller(verifier, signed(keys[2], "three"))
    assert Provider.asked == 3  # whoever makes up keys makes nobody ask for them
    Provider.keys = ""
    assert caller(verifier, signed(keys[0])).subject == "portal"  # the provider is down, and its keys are known


def test_a_token_that_was_good_is_refused_once_it_has_expired(keys, tmp_path):
    (tmp_path / "jwks.json").write_text(jwks(("one", keys[0])))
    settings = TokenSettings(algorithm="RS256", jwks=str(tmp_path / "jwks.json"), issuer=None, leeway_s=0)
    verifier, token = TokenVerifier(settings), signed(keys[0], exp=now_s() + 2)
    assert [caller(verifier, token) for _ in range(3)] == [Caller("portal", frozenset({"features"}))] * 3
    time.sleep(2)
    with pytest.raises(TokenRefusedError, match="expired"):
        caller(verifier, token)


def test_a_token_that_was_good_is_refused_once_its_key_is_gone_or_another(provider, keys, monkeypatch):
    settings = TokenSettings.model_construct(algorithm="RS256", jwks=provider, secret_file=None, audience="reel",
                                             issuer=None, leeway_s=30)  # fmt: skip
    monkeypatch.setattr("serving.tokens.REFETCH_S", 0.0)
    for after in (jwks(("two", keys[1])), jwks(("one", keys[2]), ("two", keys[1]))):
        verifier, token = TokenVerifier(settings), signed(keys[0])
        Provider.keys = jwks(("one", keys[0]))
        assert caller(verifier, token) == caller(verifier, token)
        Provider.keys = after
        assert caller(verifier, signed(keys[1], "two")).subject == "portal"  # a new key: all are read again
        with pytest.raises(TokenRefusedError, match=r"key that is not among|signature is not right"):
            caller(verifier, token)


def test_a_signature_is_checked_once_and_of_many_tokens_some_are_forgotten(keys, tmp_path, monkeypatch):
    (tmp_path / "jwks.json").write_text(jwks(("one", keys[0])))
    verifier = TokenVerifier(TokenSettings(algorithm="RS256", jwks=str(tmp_path / "jwks.json"), issuer=None))
    monkeypatch.setattr("serving.tokens.MOST_ACCEPTED", 2)
    decoded, decode = [], jwt.decode
    monkeypatch.setattr(
        jwt, "decode", lambda token, *rest, **named: decoded.append(token) or decode(token, *rest, **named)
    )
    first, second, third = (signed(keys[0], sub=name) for name in ("a", "b", "c"))
    for token in (first, second, first, second, third, third, first):
        caller(verifier, token)
    assert decoded == [first, second, third, first]


def test_a_caller_may_ask_so_often_and_no_other_is_slowed():
    now_s = [0.0]
    limit = RateLimit(4, lambda: now_s[0])
    assert [limit.wait_s("a") for _ in range(4)] == [0.0] * 4
    assert limit.wait_s("a") == pytest.approx(0.25)
    assert limit.wait_s("b") == 0.0
    now_s[0] = 0.25
    assert limit.wait_s("a") == 0.0
    assert limit.wait_s("a") == pytest.approx(0.25)
    now_s[0] = 100.0
    assert [limit.wait_s("a") == 0.0 for _ in range(5)] == [True] * 4 + [False]
    for number in range(MOST_CALLERS):
        limit.wait_s(f"caller-{number}")
    assert len(limit._buckets) == MOST_CALLERS


def test_over_a_long_time_nobody_gets_more_than_their_rate():
    now_s = [0.0]
    limit = RateLimit(7.5, lambda: now_s[0])
    allowed = 0
    for _ in range(10_000):
        now_s[0] += 0.01
        allowed += limit.wait_s("a") == 0.0
    assert 7.5 * 100 <= allowed <= 7.5 * 101
