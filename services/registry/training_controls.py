"""Operators' control of training: each decision is numbered for its model or its run, and announced
to the trainer by an event.
"""

from datetime import datetime
from typing import Any

from services.registry.run_records import CANCELLED, FINAL_STATES, get_or_create_run
from services.registry.store.audit_queries import add_audit_entry, operator_of
from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases
from services.registry.store.tables import BatchRow, RunRow, TrainingPauseRow
from services.registry.store.training_queries import batch_of_run
from services.registry.versions.moves import UnknownVersion
from shared.errors import RatchetError
from shared.events import RunCancelled, RunResumed, TrainingPaused, TrainingResumed
from shared.identity import identity
from shared.messaging.topics import TOPICS, TRAINING_BATCHES

ACTOR = "operator"

WAITING = "waiting"
"""State of a resumed run that has not started again."""


class UnknownRun(RatchetError):
    """The registry knows no run with this id."""


class RunControlRefused(RatchetError):
    """The run is past the point at which it can be cancelled or resumed."""


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


def cancel_run(session: Session, run_id: str, reason: str, now: datetime) -> RunCancelled | None:
    """Cancel a run that has no outcome yet, started or not; None if it is cancelled already.
    Raises UnknownRun, RunControlRefused.
    """
    run = _locked_run(session, run_id) or _waiting_run(session, run_id, now)
    if run is None:
        raise UnknownRun(f"unknown run {run_id!r}; `ratchet runs list MODEL` lists the runs")
    if run.state == CANCELLED:
        return None
    if run.version is not None:
        raise RunControlRefused(
            f"run {run_id} has made {run.version} and cannot be cancelled any more; `ratchet hold "
            f"{run.model}` keeps candidates from being served"
        )
    _require_no_outcome(run, "cancelled")
    event = RunCancelled(**_next_control(session, run, "RunCancelled", reason, now))
    run.state, run.ended_at = CANCELLED, now
    run.reason, run.advice = f"cancelled by {event.actor}: {reason}", ""
    return event


def resume_run(session: Session, run_id: str, reason: str, now: datetime) -> RunResumed | None:
    """Resume a cancelled run; None if it is not cancelled. Raises UnknownRun, RunControlRefused."""
    run = _locked_run(session, run_id)
    if run is None:
        raise UnknownRun(f"no run {run_id!r} has started or was cancelled")
    _require_no_outcome(run, "resumed")
    if run.state != CANCELLED:
        return None
    _require_announced(session, run, now)
    event = RunResumed(**_next_control(session, run, "RunResumed", reason, now))
    run.state, run.ended_at, run.reason = WAITING, None, ""
    run.step = run.total_steps = 0
    return event


def _next_control(
    session: Session, run: RunRow, kind: str, reason: str, now: datetime
) -> dict[str, Any]:
    """Number a decision on a run and audit it; return the fields of its event."""
    number = (run.control_number or 0) + 1
    run.control_number, run.updated_at = number, now
    evidence = {"run_id": run.run_id, "batch_id": run.batch_id}
    action = "cancel_run" if kind == "RunCancelled" else "resume_run"
    add_audit_entry(session, run.model, ACTOR, action, reason, now, evidence)
    return {
        "event_id": identity(kind, run.run_id, number),
        "occurred_at": now,
        "model": run.model,
        **evidence,
        "number": number,
        "actor": operator_of(session) or ACTOR,
        "reason": reason,
    }


def _locked_run(session: Session, run_id: str) -> RunRow | None:
    """Return a run that has a row, locked with its model's aliases."""
    run = session.get(RunRow, run_id)
    if run is not None:
        lock_aliases(session, run.model)
        session.refresh(run)
    return run


def _waiting_run(session: Session, run_id: str, now: datetime) -> RunRow | None:
    """Add the row of a run that has not started, None if no batch has this run."""
    batch = batch_of_run(session, run_id)
    if batch is None:
        return None
    lock_aliases(session, batch.model)
    run = get_or_create_run(session, run_id, batch.model, batch.batch_id, now)
    run.state, run.lane = WAITING, batch.lane
    return run


def _require_no_outcome(run: RunRow, change: str) -> None:
    if run.state in FINAL_STATES:
        raise RunControlRefused(
            f"run {run.run_id} has ended ({run.state}) and cannot be {change} any more"
        )


def _require_announced(session: Session, run: RunRow, now: datetime) -> None:
    """Raise RunControlRefused if the trainer cannot read the run's batch any more."""
    batch = session.get(BatchRow, run.batch_id)
    kept = next(topic.retention for topic in TOPICS if topic.name == TRAINING_BATCHES)
    if batch is not None and kept is not None and now - batch.closed_at > kept:
        raise RunControlRefused(
            f"{TRAINING_BATCHES} keeps batches for {kept.days} days, and that of run {run.run_id} "
            "is older; later runs replay its examples"
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
