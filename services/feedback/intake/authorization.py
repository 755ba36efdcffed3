"""Authorization of senders: a bearer token, or without a token file a request from this machine."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from services.feedback.intake.problems import IntakeProblem
from shared.auth.bearer_tokens import Tokens
from shared.http.bearer_auth import bearer_token, challenge
from shared.http.local_requests import is_local

TokenSource = Callable[[], Tokens]
"""Returns the tokens that are currently valid."""

_REALM = "ratchet-intake"


def authorize(peer: str | None, headers: Mapping[str, str], tokens: TokenSource | None) -> None:
    """Raise IntakeProblem (401) for a sender without permission. `tokens` is None if no token file
    is set.
    """
    if tokens is None:
        if not is_local(peer, headers):
            raise _unauthorized(
                "without RATCHET_INTAKE_TOKENS_FILE only this machine may send feedback"
            )
        return
    authorization = headers.get("authorization")
    if not authorization:
        raise _unauthorized(
            "send `Authorization: Bearer <token>`, with a token of RATCHET_INTAKE_TOKENS_FILE"
        )
    token = bearer_token(authorization)
    if token is None or tokens().role_of(token) != "send":
        raise _unauthorized(
            "invalid token in the Authorization header; send `Authorization: Bearer <token>`",
            "invalid_token",
        )


def _unauthorized(detail: str, error: str | None = None) -> IntakeProblem:
    headers = {"WWW-Authenticate": challenge(_REALM, error)}
    return IntakeProblem(HTTPStatus.UNAUTHORIZED, detail, headers)
