"""Queries of live feedback: its rewards, and the users who gave it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select

from services.registry.store.database import Session
from services.registry.store.tables import CanaryRewardRow, FeedbackUserRow, LiveRewardRow
from shared.identity import identity

USERS_KEPT = timedelta(days=90)
"""Time after which a user without feedback is deleted: the retention of `feedback.scored`, so that
invented users take no more room here than there.
"""
_DAY = timedelta(days=1)


def newest_live_reward_id(session: Session, model: str) -> int:
    """Return the id of a model's newest reward, 0 without any."""
    newest = select(func.max(LiveRewardRow.id)).where(LiveRewardRow.model == model)
    return session.scalar(newest) or 0


def known_live_rewards(
    session: Session, model: str, version: str, move: int | None = None
) -> Sequence[float]:
    """Return the rewards of a version by known users, in order of arrival; with `move`, only those
    since that move of the champion.
    """
    rewards = select(LiveRewardRow.reward).where(
        LiveRewardRow.model == model, LiveRewardRow.version == version, LiveRewardRow.known
    )
    if move is not None:
        rewards = rewards.where(LiveRewardRow.move == move)
    return session.scalars(rewards.order_by(LiveRewardRow.id)).all()


def stored_feedback_ids(session: Session, model: str, feedback_ids: Collection[str]) -> set[str]:
    """Return those of `feedback_ids` that have a reward."""
    stored = select(LiveRewardRow.feedback_id).where(
        LiveRewardRow.model == model, LiveRewardRow.feedback_id.in_(feedback_ids)
    )
    return set(session.scalars(stored))


def reward_counts_by_author(
    session: Session, model: str, authors: Collection[str]
) -> Counter[tuple[str, str, bool]]:
    """Return the number of rewards of each of `authors`, by author, version, and whether the author
    was known.
    """
    rows = select(
        LiveRewardRow.who, LiveRewardRow.version, LiveRewardRow.known, func.count()
    ).where(LiveRewardRow.model == model, LiveRewardRow.who.in_(authors))
    counts: Counter[tuple[str, str, bool]] = Counter()
    for author, version, known, count in session.execute(
        rows.group_by(LiveRewardRow.who, LiveRewardRow.version, LiveRewardRow.known)
    ):
        counts[author, version, known] = count
    return counts


def reward_counts_by_version(
    session: Session, model: str, versions: Collection[str]
) -> Counter[tuple[str, bool]]:
    """Return the number of rewards of each of `versions`, by version and whether the author was
    known.
    """
    rows = select(LiveRewardRow.version, LiveRewardRow.known, func.count()).where(
        LiveRewardRow.model == model, LiveRewardRow.version.in_(versions)
    )
    counts: Counter[tuple[str, bool]] = Counter()
    for version, known, count in session.execute(
        rows.group_by(LiveRewardRow.version, LiveRewardRow.known)
    ):
        counts[version, known] = count
    return counts


def record_users(
    session: Session, model: str, users: Collection[str], now: datetime
) -> Mapping[str, datetime]:
    """Record that `users` gave feedback at `now`. Return the time of the first feedback of each."""
    rows = select(FeedbackUserRow).where(
        FeedbackUserRow.model == model, FeedbackUserRow.who.in_(users)
    )
    stored = {row.who: row for row in session.scalars(rows)}
    for row in stored.values():
        if now - row.last_seen >= _DAY:
            row.last_seen = now
    new = [user for user in dict.fromkeys(users) if user not in stored]
    session.add_all(
        FeedbackUserRow(model=model, who=user, first_seen=now, last_seen=now) for user in new
    )
    if new:
        session.execute(
            delete(FeedbackUserRow).where(
                FeedbackUserRow.model == model, FeedbackUserRow.last_seen < now - USERS_KEPT
            )
        )
    session.flush()
    return {user: row.first_seen for user, row in stored.items()} | dict.fromkeys(new, now)


def first_seen(session: Session, model: str, user: str) -> datetime | None:
    """Return the time of a user's first feedback on a model."""
    row = session.get(FeedbackUserRow, (model, user))
    return row.first_seen if row is not None else None


def forget_user(session: Session, model: str, user: str) -> None:
    """Delete a user, and make the user's rewards anonymous: what they decided stays decided."""
    session.execute(
        delete(FeedbackUserRow).where(FeedbackUserRow.model == model, FeedbackUserRow.who == user)
    )
    live = select(LiveRewardRow).where(LiveRewardRow.model == model, LiveRewardRow.who == user)
    for reward in session.scalars(live):
        reward.who = identity("forgotten", reward.feedback_id)
    pairs = select(CanaryRewardRow).where(
        CanaryRewardRow.model == model,
        or_(CanaryRewardRow.who == user, CanaryRewardRow.other_who == user),
    )
    for pair in session.scalars(pairs):
        if pair.who == user:
            pair.who = identity("forgotten", pair.feedback_id)
        if pair.other_who == user:
            pair.other_who = identity("forgotten", pair.other_feedback_id or "")
    session.flush()
