"""Queries on the control of training, and on the batches and examples that wait for it."""

from collections.abc import Sequence

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.registry.store.tables import BatchRow, RunRow, TrainingPauseRow, WaitingReportRow
from shared.identity import run_identity


def pause_of(session: Session, model: str) -> TrainingPauseRow | None:
    """Return the pause of a model's training, None if it is not paused."""
    row = session.get(TrainingPauseRow, model)
    return row if row is not None and row.since is not None else None


def batch_of_run(session: Session, run_id: str) -> BatchRow | None:
    """Return the batch of a run that has no row yet, None without one."""
    has_run = select(RunRow.run_id).where(
        RunRow.model == BatchRow.model, RunRow.batch_id == BatchRow.batch_id
    )
    rows = session.scalars(select(BatchRow).where(~has_run.exists()))
    return next((row for row in rows if run_identity(row.batch_id) == run_id), None)


def waiting_batches(session: Session, model: str) -> Sequence[BatchRow]:
    """Return the batches of a model whose run has not started, oldest first.

    The batches of a lane start in order, so one without a run that is older than a started one
    never waits: it is in the dead letters. A cancelled run may not have started.
    """
    started = (
        select(BatchRow.lane, func.max(BatchRow.closed_at).label("closed_at"))
        .join(RunRow, and_(RunRow.model == BatchRow.model, RunRow.batch_id == BatchRow.batch_id))
        .where(BatchRow.model == model, RunRow.state != "cancelled")
        .group_by(BatchRow.lane)
        .subquery()
    )
    has_run = select(RunRow.run_id).where(
        RunRow.model == BatchRow.model, RunRow.batch_id == BatchRow.batch_id
    )
    rows = (
        select(BatchRow)
        .outerjoin(started, started.c.lane == BatchRow.lane)
        .where(
            BatchRow.model == model,
            ~has_run.exists(),
            or_(started.c.closed_at.is_(None), BatchRow.closed_at > started.c.closed_at),
        )
    )
    return session.scalars(rows.order_by(BatchRow.closed_at, BatchRow.batch_id)).all()


def waiting_reports(session: Session, model: str) -> Sequence[WaitingReportRow]:
    """Return the newest report of the waiting examples of each shard of a model."""
    rows = select(WaitingReportRow).where(WaitingReportRow.model == model)
    return session.scalars(rows.order_by(WaitingReportRow.shard)).all()
