"""Tokens for the service where there is no identity provider: on a laptop, in a demo, in tests."""

import time
from collections.abc import Iterable

import jwt

from pipelines.errors import UsageError
from pipelines.secrets import token_secret
from pipelines.settings import Settings

SCOPES = ("features", "recommendations", "churn", "cdn", "anomalies", "models")
HOUR_S = 3600


class NoOwnTokensError(UsageError):
    """Tokens come from elsewhere."""


def new_token(settings: Settings, subject: str, scopes: Iterable[str] = SCOPES, lives_s: int = HOUR_S) -> str:
    """A bearer token (RFC 7519, HS256) that the service of these settings accepts.

    Raises NoOwnTokensError where an identity provider signs them, SecretError where there is no secret.
    """
    chosen = settings.serving.tokens
    if chosen.jwks is not None:
        raise NoOwnTokensError(
            f"tokens are signed by whoever has the keys of {chosen.jwks} (serving.tokens.jwks); ask there for one"
        )
    now_s = int(time.time())
    claims: dict[str, str | int] = {"sub": subject, "aud": chosen.audience, "iat": now_s, "exp": now_s + lives_s}
    claims["scope"] = " ".join(scopes)
    if chosen.issuer is not None:
        claims["iss"] = chosen.issuer
    return jwt.encode(claims, token_secret(settings), algorithm="HS256")
