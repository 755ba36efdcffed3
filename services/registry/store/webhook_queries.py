"""Deliveries of webhooks. Audit entries become deliveries in order of their numbers, each once for
each receiver; every delivery then has its own retries.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from services.registry.store.audit_chain import chain_entries, newest_entries
from services.registry.store.database import Session
from services.registry.store.tables import AuditRow, WebhookDeliveryRow, WebhookPositionRow

KEPT = timedelta(days=30)
"""Time for which ended deliveries stay."""

_NAME = "webhooks"


def next_entries(session: Session, limit: int) -> Sequence[AuditRow]:
    """Return the audit entries that are not deliveries yet, oldest first, and move the position
    behind them. The first call starts behind the newest entry: it announces no history.
    """
    position = session.get(WebhookPositionRow, _NAME, with_for_update=True)
    if position is None:
        newest = next(iter(newest_entries(session, 1)), None)
        number = newest.number if newest is not None and newest.number is not None else 0
        session.add(WebhookPositionRow(name=_NAME, number=number))
        return []
    entries = chain_entries(session, position.number, limit)
    if entries and entries[-1].number is not None:
        position.number = entries[-1].number
    return entries


def add_delivery(session: Session, endpoint: str, number: int, now: datetime) -> None:
    """Add the delivery of an audit entry to a receiver, due now."""
    session.add(
        WebhookDeliveryRow(
            endpoint=endpoint, number=number, attempts=0, due_at=now, ended_at=None, result=""
        )
    )


def due_deliveries(
    session: Session, endpoint: str, now: datetime, limit: int
) -> list[tuple[WebhookDeliveryRow, AuditRow]]:
    """Return deliveries to a receiver that are due, oldest first, with their audit entries."""
    rows = (
        select(WebhookDeliveryRow, AuditRow)
        .join(AuditRow, AuditRow.number == WebhookDeliveryRow.number)
        .where(
            WebhookDeliveryRow.endpoint == endpoint,
            WebhookDeliveryRow.ended_at.is_(None),
            WebhookDeliveryRow.due_at <= now,
        )
    )
    found = session.execute(rows.order_by(WebhookDeliveryRow.number).limit(limit))
    return [(delivery, entry) for delivery, entry in found]


def record_attempt(
    session: Session, delivery: int, result: str, due_at: datetime | None, ended_at: datetime | None
) -> None:
    """Record an attempt: its result, and when the next one is due or that it was the last."""
    row = session.get(WebhookDeliveryRow, delivery)
    if row is not None and row.ended_at is None:
        row.attempts, row.result, row.ended_at = row.attempts + 1, result, ended_at
        row.due_at = due_at or row.due_at


def end_deliveries(session: Session, endpoint: str, result: str, now: datetime) -> int:
    """End every delivery to a receiver that has not ended. Returns their number."""
    rows = session.scalars(
        select(WebhookDeliveryRow).where(
            WebhookDeliveryRow.endpoint == endpoint, WebhookDeliveryRow.ended_at.is_(None)
        )
    ).all()
    for row in rows:
        row.result, row.ended_at = result, now
    return len(rows)


def end_deliveries_of_others(session: Session, endpoints: Collection[str], now: datetime) -> None:
    """End the deliveries to receivers that are no longer in the file, and delete old rows."""
    rows = select(WebhookDeliveryRow).where(
        WebhookDeliveryRow.endpoint.not_in(endpoints), WebhookDeliveryRow.ended_at.is_(None)
    )
    for row in session.scalars(rows):
        row.result, row.ended_at = "not in the file", now
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.ended_at < now - KEPT))
