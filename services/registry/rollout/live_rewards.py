"""Selection of the live rewards to store: each feedback event once, and only the first rewards of
each version and of each author for it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.registry.rollout.known_users import KnownUsers, author_id
from services.registry.store.database import Session
from services.registry.store.live_reward_queries import (
    reward_counts_by_author,
    reward_counts_by_version,
    stored_feedback_ids,
)
from services.registry.store.tables import AliasRow, LiveRewardRow
from shared.config.monitor import MonitorSettings
from shared.events import FeedbackScored
from shared.identity import identity


def store_rewards(
    session: Session,
    row: AliasRow,
    feedback: Sequence[FeedbackScored],
    rule: MonitorSettings,
    known_users: KnownUsers,
    first_seen: Mapping[str, datetime],
) -> None:
    """Store the rewards of feedback on a model's answers, in its order, at most `rewards_per_user`
    of each author, and as many again once the author is known. `first_seen` has the time of each
    user's first feedback.

    Ignores retractions, which carry no rating, and feedback on versions other than the champion and
    the one before it.
    """
    rated = [
        # IDs made by applications may contain characters that a database rejects, so hash them.
        (event, event.model_version, identity("feedback", event.identity), author_id(event))
        for event in feedback
        if event.feedback_type != "retracted"
        and event.model_version is not None
        and event.model_version in (row.champion, row.previous)
    ]
    if not rated:
        return
    served = [version for version in (row.champion, row.previous) if version is not None]
    stored = stored_feedback_ids(session, row.model, [feedback_id for *_, feedback_id, _ in rated])
    by_author = reward_counts_by_author(session, row.model, [author for *_, author in rated])
    by_version = reward_counts_by_version(session, row.model, served)
    for event, version, feedback_id, author in rated:
        known = event.user_id is not None and known_users.include(author, first_seen.get(author))
        if (
            feedback_id in stored
            or by_author[author, version, known] >= rule.rewards_per_user
            or by_version[version, known] >= rule.most_rewards
        ):
            continue
        stored.add(feedback_id)
        by_author[author, version, known] += 1
        by_version[version, known] += 1
        session.add(
            LiveRewardRow(
                model=row.model,
                version=version,
                feedback_id=feedback_id,
                who=author,
                known=known,
                reward=event.reward,
                move=row.move,
            )
        )
    session.flush()
