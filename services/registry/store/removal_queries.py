"""Queries of adapters that were removed, or may be."""

from collections.abc import Sequence

from sqlalchemy import select

from services.registry.store.database import Session
from services.registry.store.tables import AdapterRemovalDoneRow, AdapterRemovalRow, RunRow


def removed_run_ids(session: Session, model: str) -> set[str]:
    """Return the runs whose adapter was removed or is scheduled to be."""
    rows = select(AdapterRemovalRow.run_id).where(AdapterRemovalRow.model == model)
    return set(session.scalars(rows))


def all_runs_of(session: Session, model: str) -> Sequence[RunRow]:
    """Return every run of a model, newest first."""
    rows = select(RunRow).where(RunRow.model == model)
    return session.scalars(rows.order_by(RunRow.started_at.desc(), RunRow.run_id)).all()


def pending_removals(session: Session, model: str) -> Sequence[AdapterRemovalRow]:
    """Return scheduled removals whose objects may still exist, oldest first."""
    done = select(AdapterRemovalDoneRow.run_id)
    rows = select(AdapterRemovalRow).where(
        AdapterRemovalRow.model == model, AdapterRemovalRow.run_id.not_in(done)
    )
    return session.scalars(rows.order_by(AdapterRemovalRow.at)).all()
