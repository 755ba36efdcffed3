"""Event handlers: functions of session, event and context, each in one transaction, to whose outbox
the caller adds the events that they return.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from services.registry.lifecycle import registration_result, version_name
from services.registry.rollout.canary_trial import begin_trial
from services.registry.run_records import (
    CANCELLED,
    FINAL_STATES,
    INACTIVE_STATES,
    get_or_create_run,
    new_version,
    record_outcome,
    verdict_evidence,
    version_registered,
)
from services.registry.store.audit_queries import add_audit_entry
from services.registry.store.database import Session
from services.registry.store.queries import (
    aliases_of,
    canary_trial_of,
    hold_of,
    lock_aliases,
    to_aliases,
    version_of_run,
)
from services.registry.store.tables import (
    BatchRow,
    CanaryTrialRow,
    Json,
    OutcomeRow,
    RunPointRow,
    VersionRow,
)
from services.registry.training_requests import record_answer
from services.registry.versions.moves import move_aliases, promote
from services.registry.versions.withdrawals import record_withdrawal
from services.registry.waiting_examples import record_report
from shared.config.canary import CanarySettings
from shared.config.model_file import ModelFile
from shared.errors import ContractViolation, InvalidArtefact
from shared.events import (
    BatchReady,
    CheckpointSaved,
    ExamplesWithdrawn,
    TrainingProgressed,
    TrainingRequestAnswered,
    TrainingRolledBack,
    VersionEvent,
    VersionPromoted,
    VersionRegistered,
    WaitingReported,
)
from shared.identity import identity
from shared.storage.keys import require_key

ACTOR = "registry"


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """Inputs of a handler besides the event: the time, the offset of the event's record, and the
    settings of canary trials if the model is to have them.
    """

    now: datetime
    offset: int = 0
    canary: CanarySettings | None = None


def model_declared(session: Session, model: ModelFile, now: datetime) -> list[VersionEvent]:
    """Give a declared model without versions version 0, the base itself, as its champion."""
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
    reason, evidence = "the base model, unchanged", {"base": model.base.model_dump()}
    move_aliases(session, "found", version, ACTOR, reason, evidence, now, is_new=True)
    registered = version_registered(version, 0, "promoted", version.name, now)
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
    return [registered, promoted]


def examples_withdrawn(
    session: Session, event: ExamplesWithdrawn, context: HandlerContext
) -> list[VersionEvent]:
    """Record examples that were withdrawn from training."""
    record_withdrawal(session, event, context.offset, context.now)
    return []


def training_request_answered(
    session: Session, event: TrainingRequestAnswered, context: HandlerContext
) -> list[VersionEvent]:
    """Record the builder's answer to a training request."""
    record_answer(session, event, context.now)
    return []


def waiting_reported(
    session: Session, event: WaitingReported, _: HandlerContext
) -> list[VersionEvent]:
    """Record the dataset service's report of the examples that wait."""
    record_report(session, event)
    return []


def batch_ready(session: Session, event: BatchReady, context: HandlerContext) -> list[VersionEvent]:
    """Record a batch and the location of its manifest, once."""
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


def training_progressed(
    session: Session, event: TrainingProgressed, context: HandlerContext
) -> list[VersionEvent]:
    """Record a run's state and, if the event has a loss, a point of its loss curve."""
    run = get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    # Progress has its own topic, so it may arrive after the outcome.
    run.updated_at = context.now
    if event.phase == "training":
        run.step, run.total_steps = max(run.step, event.step), event.total_steps
    if run.state not in INACTIVE_STATES:
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
    session: Session, event: CheckpointSaved, context: HandlerContext
) -> list[VersionEvent]:
    """Register a candidate that the gate promotes.

    It becomes champion; or starts a canary trial if the context has settings for one; or has to be
    evaluated again if the champion has moved. A model has one trial at a time.
    """
    _require_promotable(event)
    registration = _register(session, event, context)
    if registration is None:
        return []
    if registration.event.answer != "promoted":
        return [registration.event]
    promoted = promote(
        session,
        registration.version,
        ACTOR,
        "; ".join(event.verdict.reasons) or "the gate promotes it",
        registration.evidence,
        context.now,
        identity(event.run_id, event.evaluation),
    )
    return [registration.event, promoted]


@dataclass(frozen=True, slots=True)
class _Registration:
    """A registered version, the event that answers its evaluation, and the evidence for both in the
    audit log.
    """

    version: VersionRow
    event: VersionRegistered
    evidence: Json


def _require_promotable(event: CheckpointSaved) -> None:
    """Raise ContractViolation unless the gate promotes the candidate and its adapter is in the
    object store.
    """
    if event.verdict.decision != "promote":
        raise ContractViolation(
            f"a checkpoint's verdict must be 'promote', found {event.verdict.decision!r}",
            "verdict.decision",
        )
    try:
        require_key(event.adapter.uri)
    except InvalidArtefact as error:
        raise ContractViolation(str(error), "adapter.uri") from error


def _register(
    session: Session, event: CheckpointSaved, context: HandlerContext
) -> _Registration | None:
    """Record the outcome of a candidate's evaluation and make the candidate a challenger. None if
    that evaluation, or a later one, is on record. The candidate of a cancelled run waits for an
    operator. Raises ContractViolation.
    """
    now, canary = context.now, context.canary
    row = lock_aliases(session, event.model)
    if row is None:
        raise ContractViolation(f"{event.model} has no version yet", "model")
    run = get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    if run.state in FINAL_STATES or event.evaluation <= run.evaluation:
        return None
    version = version_of_run(session, event.run_id)
    if version is not None and version.adapter_digest != event.adapter.digest:
        raise ContractViolation(
            f"run {event.run_id} has already saved an adapter with digest {version.adapter_digest}",
            "adapter.digest",
        )
    is_new = version is None
    version = version or new_version(session, event, now)
    evidence = verdict_evidence(event)
    trial = canary_trial_of(session, event.model)
    on_hold, was_cancelled = hold_of(session, event.model) is not None, run.state == CANCELLED
    result = registration_result(
        to_aliases(row),
        event.verdict.baseline_version,
        on_hold or was_cancelled,
        by_canary=bool(canary or trial),
    )
    reason = f"run {event.run_id}, evaluation {event.evaluation}"
    if trial is None:
        move_aliases(session, "challenge", version, ACTOR, reason, evidence, now, is_new)
    else:
        reason = f"{reason}: {trial.version} is on a canary trial"
        move_aliases(session, "set_aside", version, ACTOR, reason, evidence, now, is_new)
    record_outcome(run, event, result, now)
    run.version = version.name
    session.add(
        OutcomeRow(
            run_id=event.run_id, evaluation=event.evaluation, event_id=event.event_id, answer=result
        )
    )
    champion = version.name if result == "promoted" else str(row.champion)
    if result == "reevaluate":
        run.reason = (
            f"its verdict is against {event.verdict.baseline_version}, but the champion is now "
            f"{champion}"
        )
    if result == "held":
        run.reason = _held_reason(trial, on_hold, was_cancelled)
    if canary and trial is None and result == "held" and not (on_hold or was_cancelled):
        begin_trial(session, version, champion, canary, now)
    registered = version_registered(version, event.evaluation, result, champion, now)
    return _Registration(version, registered, evidence)


def training_rolled_back(
    session: Session, event: TrainingRolledBack, context: HandlerContext
) -> list[VersionEvent]:
    """Record a run that ended without a version, and withdraw its challenger if it has one."""
    now = context.now
    row = lock_aliases(session, event.model)
    run = get_or_create_run(session, event.run_id, event.model, event.batch_id, event.occurred_at)
    if run.state in FINAL_STATES or (
        event.evaluation <= run.evaluation and run.evaluation > 0 and event.outcome != "failed"
    ):
        return []
    record_outcome(run, event, event.outcome, now)
    run.reason, run.advice = event.reason, event.advice
    session.merge(
        OutcomeRow(
            run_id=event.run_id,
            evaluation=event.evaluation,
            event_id=event.event_id,
            answer=event.outcome,
        )
    )
    version, evidence = version_of_run(session, event.run_id), verdict_evidence(event)
    if row is not None and version is not None and row.challenger == version.name:
        move_aliases(session, "withdraw", version, ACTOR, event.reason, evidence, now)
    else:
        add_audit_entry(session, event.model, ACTOR, event.outcome, event.reason, now, evidence)
    return []


def _held_reason(trial: CanaryTrialRow | None, on_hold: bool, was_cancelled: bool) -> str:
    if was_cancelled:
        return (
            "the run had its outcome before the trainer read that it was cancelled; this version "
            "waits until an operator promotes it"
        )
    if trial is not None:
        return (
            f"{trial.version} is on a canary trial; the next run trains on this run's batch again, "
            "unless an operator promotes this version"
        )
    if on_hold:
        return "the model is on hold; this version is challenger until an operator promotes it"
    return "canary trial running; promoted unless users rate it lower"
