"""Queries of the audit log, and its entries that move no alias."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select, tuple_

from services.registry.store.audit_chain import append_entry
from services.registry.store.database import Session
from services.registry.store.tables import AuditRow, Json

CHAMPION_ACTIONS = ("found", "promote", "roll_back")
"""Actions that make a version champion and replace the one before it."""

OUTSIDE_HISTORY = ("rejected", "inconclusive", "failed", "refused")
"""Actions that change nothing: the ends of runs without a version, and refused requests. The audit
log has them, the history of a model does not.
"""


OPERATOR = "operator"
"""Key in `Session.info` for the name of the operator who asked for a transaction."""


def operator_of(session: Session) -> str | None:
    """Return the name of the operator who asked for a transaction; None without one."""
    name: str | None = session.info.get(OPERATOR)
    return name


def add_audit_entry(
    session: Session,
    model: str,
    actor: str,
    action: str,
    reason: str,
    now: datetime,
    evidence: Json | None = None,
) -> None:
    """Record an action that concerns a model and moves none of its aliases."""
    append_entry(
        session,
        AuditRow(
            model=model,
            at=now,
            actor=actor,
            operator=operator_of(session),
            action=action,
            from_version=None,
            to_version=None,
            reason=reason,
            evidence=evidence or {},
        ),
    )


def count_actions_since(
    session: Session, model: str, actions: Collection[tuple[str, str]], since: datetime
) -> int:
    """Count the entries after `since` that have one of the pairs of actor and action."""
    rows = select(func.count()).where(
        AuditRow.model == model,
        tuple_(AuditRow.actor, AuditRow.action).in_(actions),
        AuditRow.at > since,
    )
    return session.scalar(rows) or 0


def champion_promoted_at(session: Session, model: str) -> datetime | None:
    """Return when the champion was promoted; None if it became champion by another action."""
    rows = select(AuditRow).where(AuditRow.model == model, AuditRow.action.in_(CHAMPION_ACTIONS))
    move = session.scalar(rows.order_by(AuditRow.id.desc()).limit(1))
    return move.at if move is not None and move.action == "promote" else None


def champions_in_history(session: Session, model: str) -> set[str]:
    """Return every version that is or was champion."""
    rows = select(AuditRow.from_version, AuditRow.to_version).where(
        AuditRow.model == model, AuditRow.action.in_(CHAMPION_ACTIONS)
    )
    return {name for move in session.execute(rows) for name in move if name is not None}
