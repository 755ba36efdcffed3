"""Rows and events of runs and of the versions they produce."""

from datetime import UTC, datetime
from typing import Any

from services.registry.lifecycle import RegistrationResult, version_name
from services.registry.store.database import Session
from services.registry.store.queries import next_number
from services.registry.store.tables import RunRow, TrainedWithoutRow, VersionRow
from shared.events import CheckpointSaved, TrainingRolledBack, VersionRegistered
from shared.identity import identity

FINAL_STATES = frozenset({"promoted", "held", "rejected", "inconclusive", "failed"})
"""States of a run that do not change any more."""

CANCELLED = "cancelled"
"""State of a run that an operator has cancelled; it may be resumed."""

INACTIVE_STATES = FINAL_STATES | {CANCELLED}
"""States of a run that nothing works on."""


def get_or_create_run(
    session: Session, run_id: str, model: str, batch_id: str, at: datetime
) -> RunRow:
    """Return the row of a run, started at `at` at the latest."""
    run = session.get(RunRow, run_id)
    if run is None:
        run = RunRow(
            run_id=run_id,
            model=model,
            batch_id=batch_id,
            state="loading",
            evaluation=0,
            step=0,
            total_steps=0,
        )
        run.started_at = run.updated_at = at
        run.reason = run.advice = ""
        session.add(run)
    run.started_at = min(run.started_at, at)
    return run


def record_outcome(
    run: RunRow, event: CheckpointSaved | TrainingRolledBack, state: str, now: datetime
) -> None:
    """Store the outcome of a run's evaluation, and `state` as the run's state."""
    run.state, run.evaluation, run.lane, run.parent_version = (
        state,
        event.evaluation,
        event.lane,
        event.parent_version,
    )
    run.configuration = event.configuration.model_dump(mode="json")
    run.metrics = event.metrics.model_dump(mode="json") if event.metrics else run.metrics
    run.verdict = event.verdict.model_dump(mode="json") if event.verdict else run.verdict
    run.reason = "; ".join(event.verdict.reasons) if event.verdict else ""
    run.updated_at, run.ended_at = now, event.occurred_at


def new_version(session: Session, event: CheckpointSaved, now: datetime) -> VersionRow:
    """Add the version of a saved checkpoint, with the model's next number."""
    number = next_number(session, event.model)
    version = VersionRow(
        model=event.model,
        name=version_name(number, event.occurred_at.astimezone(UTC)),
        number=number,
        created_at=now,
        run_id=event.run_id,
        batch_id=event.batch_id,
        lane=event.lane,
        parent=event.parent_version,
        adapter_uri=event.adapter.uri,
        adapter_digest=event.adapter.digest,
        base_digest=event.base_digest,
        model_digest=event.model_digest,
        training_loss=event.metrics.training_loss,
        epochs=event.metrics.epochs,
        configuration=event.configuration.model_dump(mode="json"),
        metrics=event.metrics.model_dump(mode="json"),
        probes=[probe.model_dump(mode="json") for probe in event.probes],
    )
    session.add(version)
    if event.withdrawn_through is not None:
        session.add(
            TrainedWithoutRow(
                model=event.model, version=version.name, through=event.withdrawn_through.offset
            )
        )
    session.flush()
    return version


def version_registered(
    version: VersionRow, evaluation: int, answer: RegistrationResult, champion: str, now: datetime
) -> VersionRegistered:
    """Return the event that answers the evaluation of a version."""
    adapter = (
        {"uri": version.adapter_uri, "digest": version.adapter_digest}
        if version.adapter_uri
        else None
    )
    return VersionRegistered.model_validate(
        {
            "event_id": identity("registered", version.model, version.name, evaluation),
            "occurred_at": now,
            "model": version.model,
            "version": version.name,
            "number": version.number,
            "run_id": version.run_id,
            "batch_id": version.batch_id,
            "evaluation": evaluation,
            "parent_version": version.parent,
            "adapter": adapter,
            "answer": answer,
            "champion": champion,
        }
    )


def verdict_evidence(event: CheckpointSaved | TrainingRolledBack) -> dict[str, Any]:
    """Return the outcome and the gate's verdict as the audit log stores them."""
    verdict = event.verdict.model_dump(mode="json") if event.verdict else None
    return {
        "event_id": event.event_id,
        "run_id": event.run_id,
        "batch_id": event.batch_id,
        "evaluation": event.evaluation,
        "verdict": verdict,
    }
