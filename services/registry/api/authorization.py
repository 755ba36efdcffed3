"""Who may do what: whoever has a token, in the `Authorization` header or in the cookie of those who
signed in; without one, whoever sits at this machine may read.

    reading, operating   what a route depends on; the Caller
    OPEN                 the paths that need neither
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from shared.auth.bearer_tokens import Role, Tokens
from shared.errors import RatchetError
from shared.http import local_requests as callers

COOKIE = "ratchet_token"
PUBLIC_PATHS = frozenset(
    {"/healthz", "/readyz", "/metrics", "/sign-in", "/sign-out", "/docs", "/redoc", "/openapi.json"}
)

TokensProvider = Callable[[], Tokens]
"""Tells the tokens that hold at present."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

bearer = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="a token of RATCHET_READ_TOKENS, RATCHET_OPERATE_TOKENS or a file",
)
cookie = APIKeyCookie(
    name=COOKIE,
    scheme_name="cookie",
    auto_error=False,
    description="what `/sign-in` gives to a browser",
)


class Unauthenticated(RatchetError):
    """No token, or one that is none. `challenge` is what RFC 6750 has `WWW-Authenticate` say."""

    challenge = 'Bearer realm="ratchet"'


class InvalidToken(Unauthenticated):
    """A token that is none, or is no more."""

    challenge = 'Bearer realm="ratchet", error="invalid_token"'


class Forbidden(RatchetError):
    """Somebody who is known, and may not do this."""

    challenge = 'Bearer realm="ratchet", error="insufficient_scope", scope="operate"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks. `anonymous` has no token, `by_cookie` is a browser whose user signed in."""

    role: Role
    by_cookie: bool = False
    anonymous: bool = False


def install(app: FastAPI, current: TokensProvider) -> None:
    """Let an application know which tokens hold."""
    app.state.tokens = current


def role_of(request: Request, token: str) -> Role | None:
    """What a token allows at present; None for one that is none."""
    current: TokensProvider = request.app.state.tokens
    return current().role_of(token)


async def require_reader(
    request: Request,
    header: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)] = None,
    cookie_token: Annotated[str | None, Security(cookie)] = None,
) -> Caller:
    """Whoever may read. Raises Unauthenticated, and Forbidden for a post from another site's page."""
    if "authorization" in request.headers:
        role = role_of(request, header.credentials) if header else None
        if role is None:
            raise InvalidToken(
                "the Authorization header holds no token that is valid here; it is `Bearer <token>`"
            )
        return Caller(role)
    if cookie_token and (role := role_of(request, cookie_token)):
        if request.method not in _SAFE and not is_same_origin(request):
            raise Forbidden(
                "whoever signed in with a browser may post from the registry's own pages "
                "only; programs send a token"
            )
        return Caller(role, by_cookie=True)
    if is_local(request):
        return Caller("read", anonymous=True)
    if cookie_token:
        raise InvalidToken(
            "the token that this browser signed in with is not valid any more; sign in again "
            "at /sign-in"
        )
    raise Unauthenticated(
        "send `Authorization: Bearer <token>`, or sign in at /sign-in; without a token only "
        "this machine itself may read"
    )


async def require_operator(caller: Annotated[Caller, Depends(require_reader)]) -> Caller:
    """Whoever may move aliases. Raises Unauthenticated or Forbidden."""
    if caller.anonymous:
        raise Unauthenticated(
            "this needs a token that may operate: send `Authorization: Bearer <token>`, or "
            "sign in at /sign-in"
        )
    if caller.role != "operate":
        raise Forbidden("this token may only read; this needs one that may operate")
    return caller


def is_same_origin(request: Request) -> bool:
    """Whether a page of this registry sent a request: browsers say so, and let no page say
    otherwise. TLS may end before the registry.
    """
    host = request.headers.get("host")
    return bool(host) and request.headers.get("origin") in (
        f"{request.url.scheme}://{host}",
        f"https://{host}",
    )


def is_local(request: Request) -> bool:
    """Whether a request was made on this machine, to this machine, through nobody else."""
    return callers.is_local(request.client.host if request.client else None, request.headers)
