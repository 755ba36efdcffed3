"""Queries on idempotency keys."""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.registry.store.tables import IdempotencyKeyRow


def delete_keys_before(session: Session, at: datetime) -> None:
    session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.at < at))
