"""Tokens that Reel signs itself are those that its service accepts, and are had only where nobody else signs them."""

import asyncio
import os
import stat
from pathlib import Path

import jwt
import pytest

from pipelines.secrets import SecretError
from pipelines.settings import Settings
from pipelines.settings_serving import ServingSettings, TokenSettings
from pipelines.tokens import NoOwnTokensError, new_token
from serving.settings import TokenSettings as Accepted
from serving.tokens import Caller, TokenVerifier

SECRET = "of thirty-two bytes, as RFC 7518 has it"


def settings(folder: Path, environment: str = "local", **tokens: str) -> Settings:
    return Settings(environment=environment, work_dir=folder, serving=ServingSettings(tokens=TokenSettings(**tokens)))


def caller(token: str, **accepted: object) -> Caller:
    verifier = TokenVerifier(Accepted(algorithm="HS256", **accepted), dict(os.environ))
    return asyncio.run(verifier.caller(token))


def test_the_service_accepts_it_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REEL_TOKEN_SECRET", raising=False)
    token = new_token(settings(tmp_path), "ann", ["features"], lives_s=60)
    file = tmp_path / "token.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert caller(token, secret_file=file) == Caller("ann", frozenset({"features"}))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60
    # The secret is made once: a token from before is still good.
    new_token(settings(tmp_path), "bob")
    assert caller(token, secret_file=file).subject == "ann"


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REEL_TOKEN_SECRET", SECRET)
    token = new_token(settings(tmp_path, issuer="laptop", audience="shop"), "ann")
    every = {"features", "recommendations", "churn", "cdn", "anomalies", "models"}
    assert caller(token, issuer="laptop", audience="shop").scopes == every
    assert not (tmp_path / "token.secret").exists()
    monkeypatch.setenv("REEL_TOKEN_SECRET", "short")
    with pytest.raises(SecretError, match="received 5"):
        new_token(settings(tmp_path), "ann")


def test_production_makes_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REEL_TOKEN_SECRET", raising=False)
    with pytest.raises(SecretError, match="REEL_TOKEN_SECRET is not set"):
        new_token(settings(tmp_path, "production"), "ann")
    with pytest.raises(NoOwnTokensError, match=r"keys of https://identity/keys \(serving\.tokens\.jwks\)"):
        new_token(settings(tmp_path, jwks="https://identity/keys"), "ann")
