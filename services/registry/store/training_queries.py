"""Queries on the control of training, and on the batches and examples that wait for it."""

from collections.abc import Sequence

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.registry.store.tables import BatchRow, RunRow, TrainingPauseRow, WaitingReportRow


def pause_of(session: Session, model: str) -> TrainingPauseRow | None:
    """Return the pause of a model's training, None if it is not paused."""
    row = session.get(TrainingPauseRow, model)
    return row if row is not None and row.since is not None else None


def waiting_batches(session: Session, model: str) -> Sequence[BatchRow]:
    """Return the batches of a model whose run has not started, oldest first.

    The batches of a lane start in order, so one without a run that is older than a started one
    never waits: it is in the dead letters.
    """
    started = (
        select(BatchRow.lane, func.max(BatchRow.closed_at).label("closed_at"))
        .join(RunRow, and_(RunRow.model == BatchRow.model, RunRow.batch_id == BatchRow.batch_id))
        .where(BatchRow.model == model)
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
