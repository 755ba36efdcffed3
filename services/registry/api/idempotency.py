"""The same request twice is one move (draft-ietf-httpapi-idempotency-key-header): a client that has
heard no answer asks again under the same key, and is told what came of it the first time.

A key is kept in the transaction of the decision that it was sent with. A request that was refused
has decided nothing and keeps none.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.registry.store.tables import IdempotencyKey, Json
from shared.errors import RatchetError

KEPT = timedelta(hours=24)

ANSWERED_WITHIN = timedelta(seconds=20)
"""Longer than an answer takes to be found out. Whoever should have given one that is later than
this has died over it.
"""

_CHARACTERS = r"[A-Za-z0-9._~:+/=@-]{1,255}"
FORM = f'^("{_CHARACTERS}"|{_CHARACTERS})$'
"""A string as the draft has it, in quotes; many clients leave them out."""


class KeyReused(RatchetError):
    """A key that another request was sent with."""


class KeyInUse(RatchetError):
    """A key whose request is being answered."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request under a key; `request` is the same for the same request only."""

    key: str
    request: str


def keyed(header: str, request: str) -> Keyed:
    return Keyed(header.strip('"'), request)


def remembered(session: Session, asked: Keyed, now: datetime) -> IdempotencyKey | None:
    """What was decided when this was asked before; None if it was not. Raises KeyReused, or
    KeyInUse.
    """
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.at < now - KEPT))
    row = session.get(IdempotencyKey, asked.key)
    if row is None:
        return None
    if row.request != asked.request:
        raise KeyReused(
            f"the Idempotency-Key {asked.key} was sent with another request; a new request "
            "needs a new key"
        )
    if row.answer is None and now - row.at < ANSWERED_WITHIN:
        raise KeyInUse(
            f"the request with the Idempotency-Key {asked.key} is being answered; ask again "
            "in a second"
        )
    return row


def keep(
    session: Session,
    asked: Keyed,
    model: str,
    origin: str | None,
    to: str,
    move: int,
    now: datetime,
) -> None:
    """Keep a key with what was decided."""
    session.add(
        IdempotencyKey(
            key=asked.key,
            request=asked.request,
            model=model,
            from_version=origin,
            to_version=to,
            move=move,
            answer=None,
            at=now,
        )
    )
    session.flush()


def answered(session: Session, asked: Keyed, answer: Json) -> None:
    """Keep the first answer that was found out."""
    row = session.get(IdempotencyKey, asked.key)
    if row is not None and row.answer is None:
        row.answer = answer
