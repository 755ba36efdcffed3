"""The hash chain of the audit log in the database: entries are appended one after the other,
whichever replica writes them.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from services.registry.store.database import Session
from services.registry.store.tables import AuditHeadRow, AuditRow
from shared.audit_chain import FIRST_PREVIOUS_HASH, as_stored, entry_hash

_NAME = "audit"


def append_entry(session: Session, row: AuditRow) -> None:
    """Add an entry to the audit log, as the next one of the chain.

    The head stays locked until the transaction ends: a concurrent transaction waits, and on
    PostgreSQL is then repeated, because the head that it has read has changed.
    """
    head = session.get(AuditHeadRow, _NAME, with_for_update=True)
    if head is None:
        head = AuditHeadRow(name=_NAME, number=0, hash=FIRST_PREVIOUS_HASH)
        session.add(head)
        session.flush()
    row.evidence = as_stored(row.evidence)
    row.number, row.previous_hash = head.number + 1, head.hash
    row.hash = entry_hash(fields_of(row))
    head.number, head.hash = row.number, row.hash
    session.add(row)
    session.flush()


def fields_of(row: AuditRow) -> dict[str, object]:
    """Return the fields of an entry that its hash covers."""
    return {
        "number": row.number,
        "at": row.at,
        "model": row.model,
        "actor": row.actor,
        "operator": row.operator,
        "action": row.action,
        "from": row.from_version,
        "to": row.to_version,
        "reason": row.reason,
        "evidence": row.evidence,
        "previous_hash": row.previous_hash,
    }


def chain_entries(
    session: Session,
    after: int,
    limit: int,
    model: str | None = None,
    since: datetime | None = None,
) -> Sequence[AuditRow]:
    """Return entries of the chain with a number above `after`, oldest first."""
    rows = select(AuditRow).where(AuditRow.number > after)
    if model is not None:
        rows = rows.where(AuditRow.model == model)
    if since is not None:
        rows = rows.where(AuditRow.at >= since)
    return session.scalars(rows.order_by(AuditRow.number).limit(limit)).all()


def newest_entries(
    session: Session, limit: int, model: str | None = None, before: int | None = None
) -> Sequence[AuditRow]:
    """Return entries of the chain with a number below `before`, newest first."""
    rows = select(AuditRow).where(AuditRow.number.is_not(None))
    if model is not None:
        rows = rows.where(AuditRow.model == model)
    if before is not None:
        rows = rows.where(AuditRow.number < before)
    return session.scalars(rows.order_by(AuditRow.number.desc()).limit(limit)).all()


def count_unchained(session: Session) -> int:
    """Count the entries that an earlier release wrote, outside the chain."""
    rows = select(func.count()).select_from(AuditRow).where(AuditRow.number.is_(None))
    return session.scalar(rows) or 0
