"""Queries on withdrawn examples and their users."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.registry.store.tables import (
    RunRow,
    TrainedWithoutRow,
    WithdrawalRow,
    WithdrawnExampleRow,
)


def withdrawn_examples_of(session: Session, model: str) -> Sequence[WithdrawnExampleRow]:
    return session.scalars(
        select(WithdrawnExampleRow).where(WithdrawnExampleRow.model == model)
    ).all()


def withdrawn_feedback_ids(session: Session, model: str) -> frozenset[str]:
    """Return the feedback ids of a model's withdrawn examples."""
    return frozenset(
        session.scalars(
            select(WithdrawnExampleRow.feedback_id).where(WithdrawnExampleRow.model == model)
        )
    )


def withdrawn_examples_by_user(
    session: Session, model: str
) -> dict[str, list[WithdrawnExampleRow]]:
    """Return the withdrawn examples of a model by the digest of their user."""
    examples: dict[str, list[WithdrawnExampleRow]] = {}
    for row in withdrawn_examples_of(session, model):
        examples.setdefault(row.user, []).append(row)
    return examples


def runs_by_batch(session: Session, model: str) -> Mapping[str, RunRow]:
    return {
        run.batch_id: run for run in session.scalars(select(RunRow).where(RunRow.model == model))
    }


def withdrawn_through_by_version(session: Session, model: str) -> Mapping[str, int]:
    """Return the offset in `dataset.withdrawals` up to which each version's run left out withdrawn
    examples; a version without an entry left out none.
    """
    rows = session.scalars(select(TrainedWithoutRow).where(TrainedWithoutRow.model == model))
    return {row.version: row.through for row in rows}


def erased_users(
    session: Session, model: str, after: tuple[datetime, str] | None, limit: int
) -> Sequence[tuple[str, datetime]]:
    """Return the digests of the users who withdrew a model's feedback, newest first, with the time.
    `after` is the last row of the page before.
    """
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
    """Return the withdrawals of some users of a model, newest first."""
    rows = select(WithdrawalRow).where(
        WithdrawalRow.model == model, WithdrawalRow.forgotten.in_(forgotten)
    )
    return session.scalars(
        rows.order_by(
            WithdrawalRow.at.desc(), WithdrawalRow.forgotten.desc(), WithdrawalRow.event_id
        )
    ).all()
