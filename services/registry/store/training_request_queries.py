"""Queries on training requests."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from services.registry.store.tables import RunRow, TrainingRequestRow


def training_requests_of(
    session: Session, model: str, limit: int, after: tuple[datetime, str] | None = None
) -> Sequence[TrainingRequestRow]:
    """Return training requests of a model, newest first. `after` is time and ID of the last one of
    the page before.
    """
    rows = select(TrainingRequestRow).where(TrainingRequestRow.model == model)
    if after is not None:
        at, request_id = after
        rows = rows.where(
            or_(
                TrainingRequestRow.requested_at < at,
                and_(
                    TrainingRequestRow.requested_at == at,
                    TrainingRequestRow.request_id < request_id,
                ),
            )
        )
    newest_first = (TrainingRequestRow.requested_at.desc(), TrainingRequestRow.request_id.desc())
    return session.scalars(rows.order_by(*newest_first).limit(limit)).all()


def run_of_batch(session: Session, model: str, batch_id: str) -> RunRow | None:
    """Return the run of a batch, None before it has started."""
    return session.scalar(select(RunRow).where(RunRow.model == model, RunRow.batch_id == batch_id))
