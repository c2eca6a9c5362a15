"""Letting callers in: a good token, for this endpoint, and not too often."""

import ipaddress
import logging
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serving.errors import ConfigurationError
from serving.problems import ProblemError
from serving.rate_limit import RateLimit
from serving.settings import ServingSettings
from serving.tokens import Caller, KeysUnavailableError, Scope, TokenRefusedError, TokenVerifier

ANYBODY = Caller("anybody", frozenset(Scope))
_REALM = 'Bearer realm="reel"'
_RETRY_KEYS_S = 5
_bearer = HTTPBearer(bearerFormat="JWT", description="a JSON Web Token; its `scope` says what for", auto_error=False)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]

_log = logging.getLogger(__name__)


class Access:
    """What every endpoint asks before it does anything."""

    def __init__(self, settings: ServingSettings) -> None:
        """Raises ConfigurationError if the keys of tokens cannot be read."""
        self._verifier = None if settings.tokens is None else TokenVerifier(settings.tokens)
        self._limit = None if settings.requests_per_s is None else RateLimit(settings.requests_per_s)

    @property
    def problems(self) -> tuple[HTTPStatus, ...]:
        """How an endpoint may turn a caller away, for its documentation."""
        tokens = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
        return (*(tokens if self._verifier else ()), *((HTTPStatus.TOO_MANY_REQUESTS,) if self._limit else ()))

    def to(self, scope: Scope) -> Sequence[Any]:
        """Dependencies of endpoints that need `scope`: one, which gives the `Caller`."""
        kind = _Anybody if self._verifier is None else _Bearer
        return [Depends(kind(self, scope))]

    async def caller(self, token: str | None, scope: Scope) -> Caller:
        """Whose `token` it is, for whoever does not ask over HTTP.

        Raises ProblemError if there is none, it is not accepted or not for `scope`, or its bearer asks too often.
        """
        if self._verifier is None:
            self._count(ANYBODY)
            return ANYBODY
        return await self._checked(self._verifier, scope, token)

    async def _checked(self, verifier: TokenVerifier, scope: Scope, token: str | None) -> Caller:
        if token is None:
            raise _refused("a bearer token is needed: `Authorization: Bearer TOKEN`", _REALM)
        try:
            caller = await verifier.caller(token)
        except TokenRefusedError as error:
            raise _refused(str(error), f'{_REALM}, error="invalid_token", error_description="{error}"') from None
        except KeysUnavailableError as error:
            _log.error("nobody can be let in: %s", error)
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "tokens cannot be checked now; ask again in some seconds",
                headers={"Retry-After": str(_RETRY_KEYS_S)},
            ) from None
        if scope not in caller.scopes:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                f"the token is not for this: its scope lacks {scope.value!r}",
                headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope.value}"'},
            )
        self._count(caller)
        return caller

    def _count(self, caller: Caller) -> None:
        wait_s = self._limit.wait_s(caller.subject) if self._limit is not None else 0.0
        if wait_s:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many requests of one caller; ask again in {wait_s:.2f} s",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )


class _Anybody:
    """The dependency where no token is asked for."""

    def __init__(self, access: Access, scope: Scope) -> None:
        self._access, self._scope = access, scope

    async def __call__(self) -> Caller:
        return await self._access.caller(None, self._scope)

    async def of_request(self, request: Request) -> Caller:
        """See `query_route.Check`."""
        return await self()


class _Bearer:
    """The dependency of endpoints that need a scope; FastAPI reads off it how a token is sent."""

    def __init__(self, access: Access, scope: Scope) -> None:
        self._access, self._scope = access, scope

    async def __call__(self, credentials: Credentials) -> Caller:
        return await self._access.caller(None if credentials is None else credentials.credentials, self._scope)

    async def of_request(self, request: Request) -> Caller:
        """See `query_route.Check`."""
        return await self(await _bearer(request))


def check_access(settings: ServingSettings) -> None:
    """Raises ConfigurationError if tokens cannot be checked, or if others than this machine would need none."""
    if settings.tokens is not None:
        TokenVerifier(settings.tokens)
    elif not _is_this_machine(settings.host):
        raise ConfigurationError(
            f"host {settings.host} lets other machines ask, and no token is asked of them; configure tokens, "
            "or listen on 127.0.0.1 only"
        )


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(detail: str, challenge: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
