"""The same request twice is one move (draft-ietf-httpapi-idempotency-key-header): a client that has
heard no answer asks again under the same key, and is told what came of it the first time.

A key is kept in the transaction of the decision that it was sent with. A request that was refused
has decided nothing and keeps none.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete

from services.registry.store.database import Session
from services.registry.store.tables import IdempotencyKeyRow, Json
from shared.errors import RatchetError

KEY_LIFETIME = timedelta(hours=24)

RESPONSE_DEADLINE = timedelta(seconds=20)
"""Longer than an answer takes to be found out. Whoever should have given one that is later than
this has died over it.
"""

_CHARACTERS = r"[A-Za-z0-9._~:+/=@-]{1,255}"
KEY_PATTERN = f'^("{_CHARACTERS}"|{_CHARACTERS})$'
"""A string as the draft has it, in quotes; many clients leave them out."""


class KeyReused(RatchetError):
    """A key that another request was sent with."""


class KeyInUse(RatchetError):
    """A key whose request is being answered."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request under a key; `request` is the same for the same request only."""

    key: str
    fingerprint: str


def idempotent_request(header: str, request: str) -> IdempotentRequest:
    return IdempotentRequest(header.strip('"'), request)


def find_key(session: Session, asked: IdempotentRequest, now: datetime) -> IdempotencyKeyRow | None:
    """What was decided when this was asked before; None if it was not. Raises KeyReused, or
    KeyInUse.
    """
    session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.at < now - KEY_LIFETIME))
    row = session.get(IdempotencyKeyRow, asked.key)
    if row is None:
        return None
    if row.request != asked.fingerprint:
        raise KeyReused(
            f"the Idempotency-Key {asked.key} was sent with another request; a new request "
            "needs a new key"
        )
    if row.answer is None and now - row.at < RESPONSE_DEADLINE:
        raise KeyInUse(
            f"the request with the Idempotency-Key {asked.key} is being answered; ask again "
            "in a second"
        )
    return row


def store_key(
    session: Session,
    asked: IdempotentRequest,
    model: str,
    origin: str | None,
    to: str,
    move: int,
    now: datetime,
) -> None:
    """Keep a key with what was decided."""
    session.add(
        IdempotencyKeyRow(
            key=asked.key,
            request=asked.fingerprint,
            model=model,
            from_version=origin,
            to_version=to,
            move=move,
            answer=None,
            at=now,
        )
    )
    session.flush()


def store_response(session: Session, asked: IdempotentRequest, answer: Json) -> None:
    """Keep the first answer that was found out."""
    row = session.get(IdempotencyKeyRow, asked.key)
    if row is not None and row.answer is None:
        row.answer = answer
