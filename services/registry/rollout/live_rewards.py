"""Selection of the live rewards to store: each feedback event once, and only the first rewards of
each version and of each author for it.
"""

from collections import Counter
from collections.abc import Sequence

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


def author_id(event: FeedbackScored) -> str:
    """Return a stable ID of the author: of the user, else the conversation, the response or the
    event.
    """
    return identity(
        "live",
        event.model,
        event.user_id or event.conversation_id or event.response_id or event.identity,
    )


def store_rewards(
    session: Session, row: AliasRow, feedback: Sequence[FeedbackScored], rule: MonitorSettings
) -> None:
    """Store the rewards of feedback on a model's answers, in its order, at most `rewards_per_user`
    of each author.

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
    stored = _StoredRewards(
        session,
        row,
        [feedback_id for _, _, feedback_id, _ in rated],
        [author for *_, author in rated],
    )
    for event, version, feedback_id, author in rated:
        known = event.user_id is None or stored.has_rated_another(author, version)
        if (
            stored.has(feedback_id)
            or stored.count_of_author(author, version) >= rule.rewards_per_user
            or stored.count_of_version(version, known) >= rule.most_rewards
        ):
            continue
        stored.add(feedback_id, author, version, known)
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


class _StoredRewards:
    """Counts of the stored rewards that concern a batch of feedback, read by three queries whatever
    the size of the batch.
    """

    def __init__(
        self, session: Session, row: AliasRow, feedback_ids: Sequence[str], authors: Sequence[str]
    ) -> None:
        served = [version for version in (row.champion, row.previous) if version is not None]
        self._feedback_ids = stored_feedback_ids(session, row.model, feedback_ids)
        self._authors = dict(reward_counts_by_author(session, row.model, authors))
        self._versions = reward_counts_by_version(session, row.model, served)

    def has(self, feedback_id: str) -> bool:
        return feedback_id in self._feedback_ids

    def count_of_author(self, author: str, version: str) -> int:
        return self._authors.get(author, Counter())[version]

    def has_rated_another(self, author: str, version: str) -> bool:
        return any(rated != version for rated in self._authors.get(author, ()))

    def count_of_version(self, version: str, known: bool) -> int:
        return self._versions[version, known]

    def add(self, feedback_id: str, author: str, version: str, known: bool) -> None:
        self._feedback_ids.add(feedback_id)
        self._authors.setdefault(author, Counter())[version] += 1
        self._versions[version, known] += 1
