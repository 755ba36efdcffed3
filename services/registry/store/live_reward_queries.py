"""Queries of the rewards of live feedback."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import func, select

from services.registry.store.database import Session
from services.registry.store.tables import LiveRewardRow


def newest_live_reward_id(session: Session, model: str) -> int:
    """Return the id of a model's newest reward, 0 without any."""
    newest = select(func.max(LiveRewardRow.id)).where(LiveRewardRow.model == model)
    return session.scalar(newest) or 0


def has_live_reward_through(session: Session, model: str, author: str, newest: int) -> bool:
    """True if an author has a reward with an id of at most `newest`."""
    rewards = select(LiveRewardRow.id).where(
        LiveRewardRow.model == model, LiveRewardRow.who == author, LiveRewardRow.id <= newest
    )
    return session.scalar(rewards.limit(1)) is not None


def live_rewards_of(session: Session, model: str, version: str) -> Sequence[float]:
    """Return all rewards of a version, in order of arrival."""
    rewards = select(LiveRewardRow.reward).where(
        LiveRewardRow.model == model, LiveRewardRow.version == version
    )
    return session.scalars(rewards.order_by(LiveRewardRow.id)).all()


def known_live_rewards_since(
    session: Session, model: str, version: str, move: int
) -> Sequence[float]:
    """Return the rewards of a version since its move `move` of the champion, in order of arrival,
    only those of authors who had used another version before.
    """
    rewards = select(LiveRewardRow.reward).where(
        LiveRewardRow.model == model,
        LiveRewardRow.version == version,
        LiveRewardRow.move == move,
        LiveRewardRow.known,
    )
    return session.scalars(rewards.order_by(LiveRewardRow.id)).all()


def stored_feedback_ids(session: Session, model: str, feedback_ids: Collection[str]) -> set[str]:
    """Return those of `feedback_ids` that have a reward."""
    stored = select(LiveRewardRow.feedback_id).where(
        LiveRewardRow.model == model, LiveRewardRow.feedback_id.in_(feedback_ids)
    )
    return set(session.scalars(stored))


def reward_counts_by_author(
    session: Session, model: str, authors: Collection[str]
) -> Mapping[str, Counter[str]]:
    """Return the number of rewards of each of `authors`, by author and version."""
    rows = select(LiveRewardRow.who, LiveRewardRow.version, func.count()).where(
        LiveRewardRow.model == model, LiveRewardRow.who.in_(authors)
    )
    counts: dict[str, Counter[str]] = {}
    for author, version, count in session.execute(
        rows.group_by(LiveRewardRow.who, LiveRewardRow.version)
    ):
        counts.setdefault(author, Counter())[version] = count
    return counts


def reward_counts_by_version(
    session: Session, model: str, versions: Collection[str]
) -> Counter[tuple[str, bool]]:
    """Return the number of rewards of each of `versions`, by version and whether the author had
    used another version before.
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
