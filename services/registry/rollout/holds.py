"""Holds: while a model is on hold only an operator moves its champion. Versions that the gate
promotes wait as challenger; a canary trial is frozen.
"""

from datetime import datetime, timedelta

from services.registry.store.audit_queries import (
    add_audit_entry,
    count_actions_since,
    operator_of,
)
from services.registry.store.database import Session
from services.registry.store.queries import canary_trial_of, hold_of, lock_aliases
from services.registry.store.tables import HoldRow
from services.registry.versions.moves import UnknownVersion

_AUTOMATIC = (("monitor", "roll_back"), ("canary", "withdraw"))
"""Actor and action of the decisions against a version that no operator made."""


def hold(session: Session, model: str, actor: str, reason: str, now: datetime) -> bool:
    """Put a model on hold; False if it already is. Raises UnknownVersion if it has no version."""
    _require_model(session, model)
    if hold_of(session, model) is not None:
        return False
    session.add(
        HoldRow(model=model, since=now, actor=actor, operator=operator_of(session), reason=reason)
    )
    add_audit_entry(session, model, actor, "hold", reason, now)
    return True


def release(session: Session, model: str, actor: str, reason: str, now: datetime) -> bool:
    """Lift a hold; False without one. Raises UnknownVersion if the model has no version."""
    _require_model(session, model)
    row = hold_of(session, model)
    if row is None:
        return False
    if (trial := canary_trial_of(session, model)) is not None:
        trial.frozen_seconds += (now - max(row.since, trial.began)).total_seconds()
    session.delete(row)
    add_audit_entry(session, model, actor, "release", reason, now)
    return True


def hold_if_too_often(session: Session, model: str, actor: str, limit: int, now: datetime) -> None:
    """Put a model on hold after `limit` automatic rollbacks and withdrawals within a day."""
    times = count_actions_since(session, model, _AUTOMATIC, now - timedelta(days=1))
    if times >= limit:
        reason = (
            f"{times} automatic rollbacks or withdrawals within a day; check the recent feedback "
            "and training data"
        )
        hold(session, model, actor, reason, now)


def _require_model(session: Session, model: str) -> None:
    """Lock the model's aliases. Raises UnknownVersion if it has no version."""
    if lock_aliases(session, model) is None:
        raise UnknownVersion(f"{model} has no version yet")
