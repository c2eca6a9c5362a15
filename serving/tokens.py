"""Who may ask: bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519), and what each may ask for.

A token says who it is for (`sub`), which service (`aud`), until when (`exp`) and what for (`scope`, words separated by
spaces, RFC 8693 section 4.2); it may say the one purpose that its bearer has (`purpose`, a claim of Reel's own). It is
signed with RS256, checked against the keys of a JWKS (RFC 7517, a file or an address that an identity provider offers),
or with HS256 and a secret that both ends have. The algorithm is the configured one, never what a token claims for
itself (RFC 8725, section 3.1).
"""

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import jwt

from serving.errors import ConfigurationError
from serving.secret_files import read_private
from serving.settings import TokenSettings

SECRET_VARIABLE = "REEL_TOKEN_SECRET"
LEAST_SECRET_BYTES = 32  # RFC 7518, section 3.2: as long as the hash of HS256
MOST_TOKEN_LETTERS = 8_192
REFETCH_S = 10.0  # keys are asked for anew at most so often, however many tokens name one that is not known
FETCH_TIMEOUT_S = 5.0
MOST_ACCEPTED = 10_000  # tokens that are not checked again; when there are more, all are forgotten


_log = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a token may be for."""

    FEATURES = "features"
    RECOMMENDATIONS = "recommendations"
    CHURN = "churn"
    CDN = "cdn"
    ANOMALIES = "anomalies"
    MODELS = "models"


class TokenRefusedError(Exception):
    """The token is none, or not for here, or not any more: 401."""


class KeysUnavailableError(Exception):
    """The identity provider's keys cannot be had now: 503."""


@dataclass(frozen=True)
class Caller:
    """Who asks, what for they may, and the one purpose that their token says, if it says one."""

    subject: str
    scopes: frozenset[str]
    purpose: str | None = None


@dataclass(frozen=True)
class _Accepted:
    """Who bears a token that was found good: that holds while its key is a known one, until it expires."""

    caller: Caller
    key_id: object
    key: Any
    until_s: float


class TokenVerifier:
    """Checks tokens. Safe from any thread; only what has to ask an identity provider for keys takes time.

    A caller sends the same token again and again, and nothing but time and the set of keys can make a good one bad, so
    a signature is checked once. Of tokens only their hashes are kept.
    """

    def __init__(self, settings: TokenSettings, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ConfigurationError if the secret or the keys cannot be read."""
        self._settings = settings
        self._accepted: dict[bytes, _Accepted] = {}
        self._fetching = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jwks")
        self._keys: _Secret | _KeySet
        if settings.algorithm == "HS256":
            self._keys = _Secret(_secret(settings.secret_file, environ))
        else:
            self._keys = _KeySet(str(settings.jwks))

    async def caller(self, token: str) -> Caller:
        """Whose token it is.

        Raises TokenRefusedError saying what is wrong with it, and KeysUnavailableError.
        """
        if len(token) > MOST_TOKEN_LETTERS:
            raise TokenRefusedError(f"the token has {len(token):,} letters, and {MOST_TOKEN_LETTERS:,} are the most")
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._accepted.get(digest)
        if known is not None and self._keys.known(known.key_id) is known.key and time.time() < known.until_s:
            return known.caller
        accepted = await self._checked(token)
        if len(self._accepted) >= MOST_ACCEPTED:
            self._accepted = {}
        self._accepted[digest] = accepted
        return accepted.caller

    async def _checked(self, token: str) -> _Accepted:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._keys.known(key_id) or await self._fetched(key_id)
            if key is None:
                raise TokenRefusedError("the token is signed with a key that is not among the known ones")
            claims = self._claims(token, key)
        except jwt.PyJWTError as error:
            raise TokenRefusedError(_said(error)) from None
        scopes = claims.get("scope", "")
        if not isinstance(scopes, str):
            raise TokenRefusedError("the token's scope is no text of words separated by spaces")
        purpose = claims.get("purpose")
        if not isinstance(purpose, str | None):
            raise TokenRefusedError("the token's purpose is no text")
        caller = Caller(claims["sub"], frozenset(scopes.split()), purpose)
        return _Accepted(caller, key_id, key, int(claims["exp"]) + self._settings.leeway_s)

    async def _fetched(self, key_id: object) -> Any | None:
        # A thread of its own: whoever floods the service with tokens of unknown keys takes no other's.
        return await asyncio.get_running_loop().run_in_executor(self._fetching, self._keys.fetched, key_id)

    def _claims(self, token: str, key: Any) -> dict[str, Any]:
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[settings.algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": ["exp", "aud", "sub"]},
        )
        return claims


class _Secret:
    """The one key of HS256."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def known(self, key_id: object) -> bytes:
        return self._secret

    def fetched(self, key_id: object) -> bytes:
        return self._secret


class _KeySet:
    """The public keys of a JWKS, by `kid`; asked for anew when a token names another, so that keys can be rotated."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._keys: dict[str, Any] = {}
        self._asked_s = -REFETCH_S
        self._problem = "it has none"
        if not _is_address(where):
            try:
                self._keys = self._read()
            except (OSError, ValueError, jwt.PyJWTError) as error:
                raise ConfigurationError(f"tokens.jwks: {where} cannot be read as a JWKS: {error}") from None

    def known(self, key_id: object) -> Any | None:
        keys = self._keys
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(key_id) if isinstance(key_id, str) else None

    def fetched(self, key_id: object) -> Any | None:
        """The key, after the keys have been asked for again, unless they just were. One thread at a time."""
        if self.known(key_id) is None and time.monotonic() - self._asked_s >= REFETCH_S:
            self._asked_s = time.monotonic()
            try:
                self._keys = self._read()
            except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
                self._problem = str(error)
                _log.warning("the keys at %s cannot be had: %s", self._where, error)
        if not self._keys:
            raise KeysUnavailableError(f"the keys at {self._where} cannot be had: {self._problem}")
        return self.known(key_id)

    def _read(self) -> dict[str, Any]:
        if _is_address(self._where):
            answer = httpx.get(self._where, timeout=FETCH_TIMEOUT_S, follow_redirects=False).raise_for_status()
            tree = answer.json()
        else:
            tree = json.loads(Path(self._where).read_text())
        if not isinstance(tree, dict):
            raise ValueError("a JWKS is an object with `keys`")
        signing = [key for key in jwt.PyJWKSet.from_dict(tree).keys if key.public_key_use in (None, "sig")]
        return {str(key.key_id): key.key for key in signing if key.key_type == "RSA"}


def _is_address(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _secret(file: Path | None, environ: Mapping[str, str]) -> bytes:
    text = environ.get(SECRET_VARIABLE)
    if text is None:
        if file is None:
            raise ConfigurationError(
                f"no secret for tokens: set {SECRET_VARIABLE}, or tokens.secret_file to a file of mode 0600"
            )
        text = read_private(file, "tokens.secret_file")
    secret = text.strip().encode()
    if len(secret) < LEAST_SECRET_BYTES:
        raise ConfigurationError(
            f"the secret for tokens has {len(secret)} bytes, and {LEAST_SECRET_BYTES} are the least; "
            "make one with `openssl rand -hex 32`"
        )
    return secret


def _said(error: jwt.PyJWTError) -> str:
    """What is wrong, of which nothing is the token's own text."""
    named = {
        jwt.ExpiredSignatureError: "the token has expired",
        jwt.InvalidAudienceError: "the token is for another service",
        jwt.InvalidIssuerError: "the token is by another issuer",
        jwt.ImmatureSignatureError: "the token is not valid yet",
        jwt.InvalidAlgorithmError: "the token is signed with another algorithm than is accepted here",
        jwt.MissingRequiredClaimError: "the token lacks exp, aud or sub",
        jwt.InvalidSignatureError: "the token's signature is not right",
    }
    return next((said for kind, said in named.items() if isinstance(error, kind)), "the token is no JSON Web Token")
