"""Withdrawals announced by the dataset service, and the versions affected by them."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from services.registry.store.audit_chain import append_entry
from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases, versions_of
from services.registry.store.tables import (
    AuditRow,
    RunRow,
    WithdrawalRow,
    WithdrawnExampleRow,
)
from services.registry.store.withdrawal_queries import (
    runs_by_batch,
    withdrawn_examples_of,
    withdrawn_through_by_version,
)
from services.registry.versions.provenance import (
    VersionOrigin,
    WithdrawnExample,
    withdrawn_by_version,
)
from shared.events import Event, ExamplesWithdrawn

ACTOR = "dataset"

MASTER_LANE = "master"
"""Its versions start from the base again; they name a parent only for comparison."""


def record_withdrawal(
    session: Session, event: ExamplesWithdrawn, offset: int, now: datetime
) -> list[Event]:
    """Store the examples that an event withdraws and that were not withdrawn before. `offset` is
    its offset in `dataset.withdrawals`.
    """
    lock_aliases(session, event.model)
    stored = session.get(WithdrawalRow, event.event_id)
    if stored is None:
        session.add(_withdrawal(event))
    else:
        stored.waiting = max(stored.waiting, event.waiting)
    added = Counter[str]()
    for batch in event.batches:
        for feedback_id in batch.feedback_ids:
            if session.get(WithdrawnExampleRow, (event.model, feedback_id)) is None:
                session.add(_example(event, batch.batch_id, feedback_id, offset))
                added[batch.batch_id] += 1
    if added or (stored is None and event.waiting):
        append_entry(session, _audit(event, added, now))
    return []


def withdrawn_ids_by_version(session: Session, model: str) -> Mapping[str, frozenset[str]]:
    """Return the feedback ids of the withdrawn examples that each version may have been made with,
    for every version except the base.
    """
    examples = withdrawn_examples_of(session, model)
    if not examples:
        return {}
    runs = runs_by_batch(session, model)
    withdrawn_through = withdrawn_through_by_version(session, model)
    versions = [
        VersionOrigin(
            version=version.name,
            parent=None if version.lane == MASTER_LANE else version.parent,
            batch_id=version.batch_id,
            run_started_at=runs[version.batch_id].started_at,
            withdrawn_through=withdrawn_through.get(version.name, -1),
        )
        for version in reversed(versions_of(session, model))
        if version.batch_id is not None
    ]
    return withdrawn_by_version(
        versions, [_withdrawn_example(example, runs.get(example.batch_id)) for example in examples]
    )


def _withdrawn_example(example: WithdrawnExampleRow, run: RunRow | None) -> WithdrawnExample:
    started_at = run.started_at if run is not None else None
    # Verdicts of earlier versions do not tell: they quarantined every rejected batch.
    rejected = run is not None and run.state == "rejected"
    if run is not None and run.verdict and run.verdict.get("quarantined") is False:
        rejected = False
    return WithdrawnExample(
        example.feedback_id, example.batch_id, example.offset, started_at, rejected
    )


def _withdrawal(event: ExamplesWithdrawn) -> WithdrawalRow:
    return WithdrawalRow(
        event_id=event.event_id,
        model=event.model,
        shard=event.shard,
        forgotten=event.forgotten,
        user=event.user,
        reason=event.reason,
        waiting=event.waiting,
        part=event.part,
        at=event.occurred_at,
    )


def _example(
    event: ExamplesWithdrawn, batch_id: str, feedback_id: str, offset: int
) -> WithdrawnExampleRow:
    return WithdrawnExampleRow(
        model=event.model,
        feedback_id=feedback_id,
        batch_id=batch_id,
        user=event.user,
        offset=offset,
    )


def _audit(event: ExamplesWithdrawn, added: Counter[str], now: datetime) -> AuditRow:
    summary = f"withdrew one user's examples: {added.total()} in batches, {event.waiting} waiting"
    return AuditRow(
        model=event.model,
        at=now,
        actor=ACTOR,
        action="forget",
        from_version=None,
        to_version=None,
        reason=f"{summary}: {event.reason}" if event.reason else summary,
        evidence={
            "event_id": event.event_id,
            "forgotten": event.forgotten,
            "user": event.user,
            "batches": dict(added),
        },
    )
