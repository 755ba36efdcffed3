"""Holds: while a model is on hold nothing but a person moves its champion. What the gate promotes
waits as challenger; a trial stands still.
"""

from datetime import datetime, timedelta

from sqlalchemy import func, select, tuple_

from services.registry.store.database import Session
from services.registry.store.queries import canary_trial_of, hold_of, lock_aliases
from services.registry.store.tables import AuditRow, HoldRow
from services.registry.versions.moves import UnknownVersion

_AUTOMATIC = (("monitor", "roll_back"), ("canary", "withdraw"))


def hold(session: Session, model: str, actor: str, reason: str, now: datetime) -> bool:
    """Put a model on hold; false when it is already. Raises UnknownVersion while it has no version."""
    if not _require_model(session, model) or hold_of(session, model) is not None:
        return False
    session.add(HoldRow(model=model, since=now, actor=actor, reason=reason))
    _audit(session, model, actor, "hold", reason, now)
    return True


def release(session: Session, model: str, actor: str, reason: str, now: datetime) -> bool:
    """Lift a hold; false when there is none. Raises UnknownVersion while the model has no version."""
    row = hold_of(session, model) if _require_model(session, model) else None
    if row is None:
        return False
    if (trial := canary_trial_of(session, model)) is not None:
        trial.frozen_seconds += (now - max(row.since, trial.began)).total_seconds()
    session.delete(row)
    _audit(session, model, actor, "release", reason, now)
    return True


def hold_if_too_often(session: Session, model: str, actor: str, limit: int, now: datetime) -> None:
    """Put a model on hold once so many of its versions were rolled back or withdrawn by themselves
    within a day.
    """
    undone = select(func.count()).where(
        AuditRow.model == model, tuple_(AuditRow.actor, AuditRow.action).in_(_AUTOMATIC)
    )
    times = session.scalar(undone.where(AuditRow.at > now - timedelta(days=1))) or 0
    if times >= limit:
        hold(
            session,
            model,
            actor,
            f"undone by itself {times} times within a day; look at what is being learned",
            now,
        )


def _require_model(session: Session, model: str) -> bool:
    if lock_aliases(session, model) is None:
        raise UnknownVersion(f"{model} has no version yet")
    return True


def _audit(
    session: Session, model: str, actor: str, action: str, reason: str, now: datetime
) -> None:
    row = AuditRow(
        model=model,
        at=now,
        actor=actor,
        action=action,
        from_version=None,
        to_version=None,
        reason=reason,
        evidence={},
    )
    session.add(row)
    session.flush()
