"""Queries of the rewards that a canary trial counts."""

from collections.abc import Sequence

from sqlalchemy import func, or_, select

from services.registry.store.database import Session
from services.registry.store.tables import CanaryRewardRow


def paired_canary_rewards(session: Session, model: str) -> Sequence[tuple[float, float]]:
    """Return the rewards of challenger and champion that are paired, in order of arrival."""
    rows = (
        select(CanaryRewardRow).where(CanaryRewardRow.model == model).order_by(CanaryRewardRow.id)
    )
    return [
        (row.reward, row.other_reward)
        for row in session.scalars(rows)
        if row.other_reward is not None
    ]


def is_canary_feedback_stored(session: Session, model: str, feedback_id: str) -> bool:
    """True if a feedback event is counted already, for the challenger or the champion."""
    rows = select(func.count()).where(
        CanaryRewardRow.model == model,
        or_(
            CanaryRewardRow.feedback_id == feedback_id,
            CanaryRewardRow.other_feedback_id == feedback_id,
        ),
    )
    return bool(session.scalar(rows))


def count_challenger_rewards(session: Session, model: str, author: str | None = None) -> int:
    """Count the rewards of the challenger, of one author or of all."""
    rows = select(func.count()).where(CanaryRewardRow.model == model)
    if author is not None:
        rows = rows.where(CanaryRewardRow.who == author)
    return session.scalar(rows) or 0


def count_champion_rewards(session: Session, model: str, author: str) -> int:
    """Count the paired rewards of the champion of one author."""
    rows = select(func.count()).where(
        CanaryRewardRow.model == model, CanaryRewardRow.other_who == author
    )
    return session.scalar(rows) or 0


def first_unpaired_reward(session: Session, model: str) -> CanaryRewardRow | None:
    """Return the challenger's oldest reward without a partner."""
    rows = select(CanaryRewardRow).where(
        CanaryRewardRow.model == model, CanaryRewardRow.other_reward.is_(None)
    )
    return session.scalar(rows.order_by(CanaryRewardRow.id).limit(1))
