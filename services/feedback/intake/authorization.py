"""Who may send: whoever has a token; where no tokens are set, whoever sits at this machine."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from services.feedback.intake.responses import IntakeProblem
from shared.auth.bearer_tokens import Tokens
from shared.http.local_requests import is_local

TokenSource = Callable[[], Tokens]


def authorize(peer: str | None, headers: Mapping[str, str], tokens: TokenSource | None) -> None:
    """Raises Problem for a caller who may not send; `tokens` is None where none are set."""
    if tokens is None:
        if not is_local(peer, headers):
            raise _unauthorized(
                "without RATCHET_INTAKE_TOKENS_FILE only this machine itself may send feedback", ""
            )
        return
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if not token:
        raise _unauthorized(
            "send `Authorization: Bearer <token>`, with a token of RATCHET_INTAKE_TOKENS_FILE", ""
        )
    if scheme.lower() != "bearer" or tokens().role_of(token.strip()) != "send":
        raise _unauthorized(
            "the Authorization header holds no token that is valid here; it is `Bearer <token>`",
            ', error="invalid_token"',
        )


def _unauthorized(detail: str, error: str) -> IntakeProblem:
    return IntakeProblem(
        HTTPStatus.UNAUTHORIZED,
        detail,
        {"WWW-Authenticate": f'Bearer realm="ratchet-intake"{error}'},
    )
