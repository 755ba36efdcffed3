"""What each event of the trainer does, in one transaction: gather, decide, apply. The events
decided are returned and in the outbox.
"""

from datetime import UTC, datetime
from typing import Any

from services.registry.lifecycle import registration_result, version_name
from services.registry.rollout.canary_trial import begin_trial
from services.registry.store.database import Session
from services.registry.store.outbox import enqueue
from services.registry.store.queries import (
    aliases_of,
    canary_trial_of,
    hold_of,
    lock_aliases,
    next_number,
    to_aliases,
    version_of_run,
)
from services.registry.store.tables import (
    BatchRow,
    CanaryTrialRow,
    OutcomeRow,
    RunPointRow,
    RunRow,
    TrainedWithoutRow,
    VersionRow,
)
from services.registry.versions.moves import move_aliases, promote
from shared.config.canary import CanarySettings
from shared.config.model_file import ModelFile
from shared.errors import ContractViolation
from shared.events import (
    BatchReady,
    CheckpointSaved,
    Event,
    TrainingProgressed,
    TrainingRolledBack,
    VersionPromoted,
    VersionRegistered,
)
from shared.identity import identity

FINAL_STATES = frozenset({"promoted", "held", "rejected", "inconclusive", "failed"})
"""States of a run that do not change any more."""

ACTOR = "registry"


def model_declared(session: Session, model: ModelFile, now: datetime) -> list[Event]:
    """A declared model without versions gets version 0, the base itself, as its champion."""
    if aliases_of(session, model.model) is not None:
        return []
    version = VersionRow(
        model=model.model,
        name=version_name(0, now.astimezone(UTC)),
        number=0,
        created_at=now,
        model_digest=model.digest,
        probes=[],
    )
    session.add(version)
    session.flush()
    reason = "the base, as it comes"
    move_aliases(
        session,
        "found",
        version,
        ACTOR,
        reason,
        {"base": model.base.model_dump()},
        now,
        is_new=True,
    )
    registered = _version_registered(version, 0, "promoted", version.name, now)
    promoted = VersionPromoted(
        event_id=identity("promoted", version.model, version.name, "found"),
        occurred_at=now,
        model=version.model,
        version=version.name,
        previous=None,
        adapter=None,
        run_id=None,
        actor=ACTOR,
        reason=reason,
    )
    for event in (registered, promoted):
        enqueue(session, model.model, event, now)
    return [registered, promoted]


def training_progressed(session: Session, event: TrainingProgressed, now: datetime) -> list[Event]:
    """How far a run is: its state, and a point of its loss curve where there is a loss."""
    run = _get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    # Progress has a topic of its own, so it may arrive after the outcome.
    run.updated_at = now
    if event.phase == "training":
        run.step, run.total_steps = max(run.step, event.step), event.total_steps
    if run.state not in FINAL_STATES:
        run.state = event.phase
    if event.loss is not None:
        point = RunPointRow(
            run_id=event.run_id, step=event.step, loss=event.loss, at=event.occurred_at
        )
        point.learning_rate, point.gradient_norm = event.learning_rate, event.gradient_norm
        point.tokens_per_second = event.tokens_per_second
        session.merge(point)
    return []


def checkpoint_saved(
    session: Session, event: CheckpointSaved, now: datetime, canary: CanarySettings | None = None
) -> list[Event]:
    """A candidate that the gate promotes: it becomes champion, or goes on trial where there is a
    rule for that, or has to be evaluated again since the champion has moved. One at a time is on
    trial.
    """
    if event.verdict.decision != "promote":
        raise ContractViolation(
            f"a checkpoint's verdict must be 'promote', found {event.verdict.decision!r}",
            "verdict.decision",
        )
    row = lock_aliases(session, event.model)
    if row is None:
        raise ContractViolation(f"{event.model} has no version yet", "model")
    run = _get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    if run.state in FINAL_STATES or event.evaluation <= run.evaluation:
        return []
    version = version_of_run(session, event.run_id)
    if version is not None and version.adapter_digest != event.adapter.digest:
        raise ContractViolation(
            f"run {event.run_id} has already saved an adapter with digest {version.adapter_digest}",
            "adapter.digest",
        )
    is_new = version is None
    version = version or _new_version(session, event, now)
    evidence = _verdict_evidence(event)
    trial, on_hold = (
        canary_trial_of(session, event.model),
        hold_of(session, event.model) is not None,
    )
    answer = registration_result(
        to_aliases(row), event.verdict.baseline_version, on_hold, by_canary=bool(canary or trial)
    )
    why = f"run {event.run_id}, evaluation {event.evaluation}"
    if trial is None:
        move_aliases(session, "challenge", version, ACTOR, why, evidence, now, is_new)
    else:
        move_aliases(
            session,
            "set_aside",
            version,
            ACTOR,
            f"{why}: {trial.version} is on trial",
            evidence,
            now,
            is_new,
        )
    _record_outcome(run, event, answer, now)
    run.version = version.name
    session.add(
        OutcomeRow(
            run_id=event.run_id, evaluation=event.evaluation, event_id=event.event_id, answer=answer
        )
    )
    champion = version.name if answer == "promoted" else str(row.champion)
    registered = _version_registered(version, event.evaluation, answer, champion, now)
    enqueue(session, event.model, registered, now)
    if answer == "reevaluate":
        run.reason = (
            f"its verdict is against {event.verdict.baseline_version}, the champion is "
            f"{champion} now"
        )
    if answer == "held":
        run.reason = _held_reason(trial, on_hold)
    if canary and trial is None and answer == "held" and not on_hold:
        begin_trial(session, version, champion, canary, now)
    if answer != "promoted":
        return [registered]
    reason = "; ".join(event.verdict.reasons) or "the gate promotes it"
    cause = identity(event.run_id, event.evaluation)
    return [registered, promote(session, version, ACTOR, reason, evidence, now, cause)]


def training_rolled_back(session: Session, event: TrainingRolledBack, now: datetime) -> list[Event]:
    """A run ended without a version; a candidate that it had as challenger is withdrawn."""
    row = lock_aliases(session, event.model)
    run = _get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    if run.state in FINAL_STATES or (
        event.evaluation <= run.evaluation and run.evaluation > 0 and event.outcome != "failed"
    ):
        return []
    _record_outcome(run, event, event.outcome, now)
    run.reason, run.advice = event.reason, event.advice
    session.merge(
        OutcomeRow(
            run_id=event.run_id,
            evaluation=event.evaluation,
            event_id=event.event_id,
            answer=event.outcome,
        )
    )
    version = version_of_run(session, event.run_id)
    if row is not None and version is not None and row.challenger == version.name:
        move_aliases(
            session, "withdraw", version, ACTOR, event.reason, _verdict_evidence(event), now
        )
    return []


def _held_reason(trial: CanaryTrialRow | None, on_hold: bool) -> str:
    if trial is not None:
        return (
            f"{trial.version} is on trial: what this run learned from is learned again by the "
            "next one, unless an operator promotes it"
        )
    if on_hold:
        return "the model is on hold: it is challenger until an operator promotes it"
    return "it is on trial beside the champion, which it follows unless users like it less"


def _get_or_create_run(
    session: Session, run_id: str, model: str, batch_id: str, at: datetime
) -> RunRow:
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


def _record_outcome(
    run: RunRow, event: CheckpointSaved | TrainingRolledBack, state: str, now: datetime
) -> None:
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


def _new_version(session: Session, event: CheckpointSaved, now: datetime) -> VersionRow:
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


def _version_registered(
    version: VersionRow, evaluation: int, answer: Any, champion: str, now: datetime
) -> VersionRegistered:
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


def _verdict_evidence(event: CheckpointSaved | TrainingRolledBack) -> dict[str, Any]:
    verdict = event.verdict.model_dump(mode="json") if event.verdict else None
    return {
        "event_id": event.event_id,
        "run_id": event.run_id,
        "batch_id": event.batch_id,
        "evaluation": event.evaluation,
        "verdict": verdict,
    }


def batch_ready(session: Session, event: BatchReady) -> list[Event]:
    """Keep where a batch lies. One that is announced again is the same batch."""
    if session.get(BatchRow, event.batch_id) is None:
        session.add(
            BatchRow(
                batch_id=event.batch_id,
                model=event.model,
                shard=event.shard,
                number=event.number,
                lane=event.lane,
                manifest_uri=event.manifest.uri,
                manifest_digest=event.manifest.digest,
                counts=event.counts.model_dump(),
                offsets=[span.model_dump() for span in event.offsets],
                closed_at=event.occurred_at,
            )
        )
    return []
