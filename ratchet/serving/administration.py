"""Protection of the administration paths `/admin/...`, checked before a body is read.

With a token file, a request needs a token of the role `operate`. Without one, only requests from
this machine are accepted. Requests that a page of another site sends are refused in both cases.
"""

from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.auth.bearer_tokens import Tokens
from shared.http.bearer_auth import bearer_token, challenge
from shared.http.local_requests import is_local

PREFIX = "/admin/"

TokenSource = Callable[[], Tokens]
"""Returns the currently valid tokens."""


class AdministrationGuard:
    """ASGI middleware that refuses administration without permission. `tokens` is None if no token
    file is set.
    """

    def __init__(self, app: ASGIApp, tokens: TokenSource | None) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Return the answer to a request without permission; None if it is permitted."""
        headers = Headers(scope=scope)
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", ""):
            return error_response(
                HTTPStatus.FORBIDDEN, "Forbidden", "web pages may not administer the host"
            )
        if self._tokens is None:
            peer = scope["client"][0] if scope.get("client") else None
            if not is_local(peer, headers):
                return _unauthorized(
                    "without RATCHET_SERVING_TOKENS_FILE, only requests from this machine may "
                    "administer the host"
                )
        else:
            token = bearer_token(headers.get("authorization"))
            if token is None:
                return _unauthorized(
                    "send `Authorization: Bearer <token>`, with an operate token of "
                    "RATCHET_SERVING_TOKENS_FILE"
                )
            if self._tokens().role_of(token) != "operate":
                return _unauthorized(
                    "the token in the Authorization header is no operate token of "
                    "RATCHET_SERVING_TOKENS_FILE",
                    "invalid_token",
                )
        # Forms, which pages of other sites can send without being asked, have other types.
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] not in ("GET", "HEAD", "DELETE") and content_type != "application/json":
            return error_response(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "NotJSON",
                "send the body with `Content-Type: application/json`",
            )
        return None


def error_response(
    status: int, kind: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error in the form of OpenAI's API; clients may depend on status and `kind`."""
    return JSONResponse(
        {"error": {"message": message, "type": kind, "code": int(status)}}, int(status), headers
    )


def _unauthorized(message: str, error: str | None = None) -> JSONResponse:
    headers = {"WWW-Authenticate": challenge("ratchet-serving", error)}
    return error_response(HTTPStatus.UNAUTHORIZED, "Unauthorized", message, headers)
