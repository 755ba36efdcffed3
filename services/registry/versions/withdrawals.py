"""What was withdrawn, as the dataset service says it, and the versions that were made with it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import and_, func, or_, select

from services.registry.store.database import Session
from services.registry.store.queries import lock_aliases, versions_of
from services.registry.store.tables import (
    AuditRow,
    RunRow,
    TrainedWithoutRow,
    WithdrawalRow,
    WithdrawnExampleRow,
)
from services.registry.versions.provenance import (
    VersionOrigin,
    WithdrawnExample,
    withdrawn_by_version,
)
from shared.events import Event, ExamplesWithdrawn

ACTOR = "dataset"

MASTER_LANE = "master"
"""Its versions begin from the base again; only for comparison do they name a parent."""


def record_withdrawal(
    session: Session, event: ExamplesWithdrawn, offset: int, now: datetime
) -> list[Event]:
    """Keep account of what an event withdraws beyond what is known; `offset` is its place in
    `dataset.withdrawals`.
    """
    lock_aliases(session, event.model)
    known = session.get(WithdrawalRow, event.event_id)
    if known is None:
        session.add(_withdrawal(event))
    else:
        known.waiting = max(known.waiting, event.waiting)
    added = Counter[str]()
    for batch in event.batches:
        for feedback_id in batch.feedback_ids:
            if session.get(WithdrawnExampleRow, (event.model, feedback_id)) is None:
                session.add(_example(event, batch.batch_id, feedback_id, offset))
                added[batch.batch_id] += 1
    if added or (known is None and event.waiting):
        session.add(_audit(event, added, now))
    return []


def withdrawn_ids_by_version(session: Session, model: str) -> Mapping[str, frozenset[str]]:
    """For each version of a model but the base, the feedback ids of the withdrawn examples that it
    was made with.
    """
    examples = session.scalars(
        select(WithdrawnExampleRow).where(WithdrawnExampleRow.model == model)
    ).all()
    if not examples:
        return {}
    runs = {
        run.batch_id: run for run in session.scalars(select(RunRow).where(RunRow.model == model))
    }
    through = {
        row.version: row.through
        for row in session.scalars(
            select(TrainedWithoutRow).where(TrainedWithoutRow.model == model)
        )
    }
    versions = [
        VersionOrigin(
            version=version.name,
            parent=None if version.lane == MASTER_LANE else version.parent,
            batch_id=version.batch_id,
            run_started_at=runs[version.batch_id].started_at,
            withdrawn_through=through.get(version.name, -1),
        )
        for version in reversed(versions_of(session, model))
        if version.batch_id is not None
    ]
    return withdrawn_by_version(
        versions, [_gone(example, runs.get(example.batch_id)) for example in examples]
    )


def _gone(example: WithdrawnExampleRow, run: RunRow | None) -> WithdrawnExample:
    began = run.started_at if run is not None else None
    rejected = run is not None and run.state == "rejected"
    return WithdrawnExample(example.feedback_id, example.batch_id, example.offset, began, rejected)


def examples_by_user(session: Session, model: str) -> dict[str, list[WithdrawnExampleRow]]:
    """The withdrawn examples of a model, by what stands for their users."""
    found: dict[str, list[WithdrawnExampleRow]] = {}
    for row in session.scalars(
        select(WithdrawnExampleRow).where(WithdrawnExampleRow.model == model)
    ):
        found.setdefault(row.user, []).append(row)
    return found


def forgotten_users(
    session: Session, model: str, after: tuple[datetime, str] | None, limit: int
) -> Sequence[tuple[str, datetime]]:
    """Who was forgotten of a model, and when: newest first, those after a place in this order."""
    at = func.min(WithdrawalRow.at)
    rows = (
        select(WithdrawalRow.forgotten, at)
        .where(WithdrawalRow.model == model)
        .group_by(WithdrawalRow.forgotten)
    )
    if after is not None:
        rows = rows.having(
            or_(at < after[0], and_(at == after[0], WithdrawalRow.forgotten < after[1]))
        )
    return [
        (row[0], row[1])
        for row in session.execute(
            rows.order_by(at.desc(), WithdrawalRow.forgotten.desc()).limit(limit)
        )
    ]


def withdrawals_of(
    session: Session, model: str, forgotten: Collection[str]
) -> Sequence[WithdrawalRow]:
    """The answers to some that were forgotten of a model, newest first."""
    rows = select(WithdrawalRow).where(
        WithdrawalRow.model == model, WithdrawalRow.forgotten.in_(forgotten)
    )
    return session.scalars(
        rows.order_by(
            WithdrawalRow.at.desc(), WithdrawalRow.forgotten.desc(), WithdrawalRow.event_id
        )
    ).all()


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
    said = (
        f"of one user's examples, {added.total()} in batches and {event.waiting} that waited may "
        "not be used any more"
    )
    return AuditRow(
        model=event.model,
        at=now,
        actor=ACTOR,
        action="forget",
        from_version=None,
        to_version=None,
        reason=f"{said}: {event.reason}" if event.reason else said,
        evidence={
            "event_id": event.event_id,
            "forgotten": event.forgotten,
            "user": event.user,
            "batches": dict(added),
        },
    )
