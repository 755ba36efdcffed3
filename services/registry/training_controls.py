"""Operators' control of training: each decision is numbered for its model, and announced to the
trainer by an event.
"""

from datetime import datetime

from services.registry.store.audit_queries import add_audit_entry, operator_of
from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases
from services.registry.store.tables import TrainingPauseRow
from services.registry.versions.moves import UnknownVersion
from shared.events import TrainingPaused, TrainingResumed
from shared.identity import identity

ACTOR = "operator"


def pause_training(
    session: Session, model: str, reason: str, now: datetime
) -> TrainingPaused | None:
    """Pause the training of a model; None if it is paused already. Raises UnknownVersion if the
    model has no version.
    """
    row = _locked_pause(session, model)
    if row.since is not None:
        return None
    row.number, row.since, row.reason = row.number + 1, now, reason
    row.operator = operator_of(session)
    add_audit_entry(session, model, ACTOR, "pause", reason, now)
    return TrainingPaused(
        event_id=identity("TrainingPaused", model, row.number),
        occurred_at=now,
        model=model,
        number=row.number,
        actor=row.operator or ACTOR,
        reason=reason,
    )


def resume_training(
    session: Session, model: str, reason: str, now: datetime
) -> TrainingResumed | None:
    """Resume the training of a model; None if it is not paused. Raises UnknownVersion if the model
    has no version.
    """
    row = _locked_pause(session, model)
    if row.since is None:
        return None
    row.number, row.since, row.reason, row.operator = row.number + 1, None, reason, None
    add_audit_entry(session, model, ACTOR, "resume", reason, now)
    return TrainingResumed(
        event_id=identity("TrainingResumed", model, row.number),
        occurred_at=now,
        model=model,
        number=row.number,
        actor=operator_of(session) or ACTOR,
        reason=reason,
    )


def _locked_pause(session: Session, model: str) -> TrainingPauseRow:
    """Return the row of a model's newest decision, locked with the model's aliases."""
    if lock_aliases(session, model) is None:
        raise UnknownVersion(f"{model} has no version yet")
    row = session.get(TrainingPauseRow, model)
    if row is None:
        row = TrainingPauseRow(model=model, number=0, since=None, operator=None, reason="")
        session.add(row)
    return row
