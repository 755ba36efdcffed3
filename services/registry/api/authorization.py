"""Authorization: a token in the `Authorization` header or in the sign-in cookie. Without a token,
requests from this machine may read.

    require_reader, require_operator   dependencies of a route; return the Caller
    PUBLIC_PATHS                       the paths that need no token
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from shared.auth.bearer_tokens import Grant, Role, Tokens
from shared.errors import RatchetError
from shared.http import bearer_auth
from shared.http.local_requests import is_local

COOKIE = "ratchet_token"
PUBLIC_PATHS = frozenset(
    {"/healthz", "/readyz", "/metrics", "/sign-in", "/sign-out", "/docs", "/redoc", "/openapi.json"}
)

TokensProvider = Callable[[], Tokens]
"""Returns the currently valid tokens."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

bearer = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="a token of RATCHET_READ_TOKENS, RATCHET_OPERATE_TOKENS or a file",
)
cookie = APIKeyCookie(
    name=COOKIE,
    scheme_name="cookie",
    auto_error=False,
    description="set by `/sign-in` for browsers",
)


class Unauthenticated(RatchetError):
    """The request has no token. `challenge` is the value of `WWW-Authenticate` (RFC 6750)."""

    challenge = bearer_auth.challenge("ratchet")


class InvalidToken(Unauthenticated):
    """The token is not valid, or no longer."""

    challenge = bearer_auth.challenge("ratchet", "invalid_token")


class Forbidden(RatchetError):
    """The token's role does not allow this request."""

    challenge = bearer_auth.challenge("ratchet", "insufficient_scope", "operate")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: `anonymous` without a token, `by_cookie` for a signed-in browser.
    `name` is that of the token's owner, None for a token without one.
    """

    role: Role
    name: str | None = None
    by_cookie: bool = False
    anonymous: bool = False


def install(app: FastAPI, current: TokensProvider, require_tokens: bool) -> None:
    """Give an application its source of valid tokens. With `require_tokens`, requests from this
    machine need one as well.
    """
    app.state.tokens = current
    app.state.require_tokens = require_tokens


def grant_of(request: Request, token: str) -> Grant | None:
    """Return the role and owner of a token, None for an invalid one."""
    current: TokensProvider = request.app.state.tokens
    return current().grant_of(token)


async def require_reader(
    request: Request,
    header: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)] = None,
    cookie_token: Annotated[str | None, Security(cookie)] = None,
) -> Caller:
    """Require permission to read. Raises Unauthenticated, or Forbidden for a cross-site POST.

    A caller with a valid token is `request.state.caller`, whether it may send the request or not.
    """
    if "authorization" in request.headers:
        grant = grant_of(request, header.credentials) if header else None
        if grant is None:
            raise InvalidToken(
                "the token in the Authorization header is not valid; send "
                "`Authorization: Bearer <token>`"
            )
        request.state.caller = caller = Caller(grant.role, grant.owner)
        return caller
    if cookie_token and (grant := grant_of(request, cookie_token)):
        request.state.caller = caller = Caller(grant.role, grant.owner, by_cookie=True)
        if request.method not in SAFE_METHODS and not is_same_origin(request):
            raise Forbidden(
                "a signed-in browser may post from the registry's own pages only; programs send "
                "`Authorization: Bearer <token>`"
            )
        return caller
    if may_be_anonymous(request):
        return Caller("read", anonymous=True)
    if cookie_token:
        raise InvalidToken(
            "the token of this browser session is no longer valid; sign in again at /sign-in"
        )
    raise Unauthenticated(
        "send `Authorization: Bearer <token>`, or sign in at /sign-in"
        + (
            ""
            if request.app.state.require_tokens
            else "; without a token, only requests from the registry's own machine may read"
        )
    )


async def require_operator(caller: Annotated[Caller, Depends(require_reader)]) -> Caller:
    """Require permission to move aliases. Raises Unauthenticated or Forbidden."""
    if caller.anonymous:
        raise Unauthenticated(
            "this needs an operate token: send `Authorization: Bearer <token>`, or sign in at "
            "/sign-in"
        )
    if caller.role != "operate":
        raise Forbidden("this token may only read; this needs an operate token")
    return caller


Operator = Annotated[Caller, Depends(require_operator)]
"""The operator who sends a request, as a parameter of a route."""


def is_same_origin(request: Request) -> bool:
    """Return whether a page of this registry sent the request, by its `Origin`, which browsers set
    and pages cannot change. TLS may end before the registry.
    """
    host = request.headers.get("host")
    return bool(host) and request.headers.get("origin") in (
        f"{request.url.scheme}://{host}",
        f"https://{host}",
    )


def may_be_anonymous(request: Request) -> bool:
    """Return whether the request was made on this machine, without a proxy, and no token is
    required there.
    """
    peer = request.client.host if request.client else None
    return not request.app.state.require_tokens and is_local(peer, request.headers)
