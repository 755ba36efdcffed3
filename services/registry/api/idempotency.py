"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): a repeated request with the same
key makes no second move and returns the response of the first.

A key is stored in the transaction of its decision. A refused request stores no key.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.registry.store.database import Session
from services.registry.store.idempotency_queries import delete_keys_before
from services.registry.store.tables import IdempotencyKeyRow, Json
from shared.errors import RatchetError

KEY_LIFETIME = timedelta(hours=24)

RESPONSE_DEADLINE = timedelta(seconds=20)
"""Longer than any request takes: after it, the process of the first request has died."""

_CHARACTERS = r"[A-Za-z0-9._~:+/=@-]{1,255}"
KEY_PATTERN = f'^("{_CHARACTERS}"|{_CHARACTERS})$'
"""The draft's quoted string; the quotes are optional, since many clients leave them out."""


class KeyReused(RatchetError):
    """The key was used for another request."""


class KeyInUse(RatchetError):
    """The key's first request is still in progress."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request with a key; the fingerprint identifies its path, body and `If-Match`."""

    key: str
    fingerprint: str


def idempotent_request(header: str, request: str) -> IdempotentRequest:
    return IdempotentRequest(header.strip('"'), request)


def find_key(
    session: Session, request: IdempotentRequest, now: datetime
) -> IdempotencyKeyRow | None:
    """Return the stored decision of an earlier request with this key, None without one. Deletes
    expired keys. Raises KeyReused or KeyInUse.
    """
    delete_keys_before(session, now - KEY_LIFETIME)
    row = session.get(IdempotencyKeyRow, request.key)
    if row is None:
        return None
    if row.request != request.fingerprint:
        raise KeyReused(
            f"the Idempotency-Key {request.key} was used for another request; a new request "
            "needs a new key"
        )
    if row.answer is None and now - row.at < RESPONSE_DEADLINE:
        raise KeyInUse(
            f"the request with the Idempotency-Key {request.key} is in progress; retry in a second"
        )
    return row


def store_key(
    session: Session,
    request: IdempotentRequest,
    model: str,
    origin: str | None,
    to: str,
    move: int,
    now: datetime,
) -> None:
    """Store a key with its decision."""
    session.add(
        IdempotencyKeyRow(
            key=request.key,
            request=request.fingerprint,
            model=model,
            from_version=origin,
            to_version=to,
            move=move,
            answer=None,
            at=now,
        )
    )
    session.flush()


def store_response(session: Session, request: IdempotentRequest, answer: Json) -> None:
    """Store the response of a key unless it has one."""
    row = session.get(IdempotencyKeyRow, request.key)
    if row is not None and row.answer is None:
        row.answer = answer
