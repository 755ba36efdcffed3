"""Which rewards of live feedback are kept: each once, the first ones of a version, and of each user
for it.
"""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import func, select

from services.registry.store.database import Session
from services.registry.store.tables import AliasRow, LiveRewardRow
from shared.config.monitor import MonitorSettings
from shared.events import FeedbackScored
from shared.identity import identity


def author_id(event: FeedbackScored) -> str:
    """What stands for whoever has an opinion, as well as it is known."""
    return identity(
        "live",
        event.model,
        event.user_id or event.conversation_id or event.response_id or event.identity,
    )


def store_rewards(
    session: Session, row: AliasRow, feedback: Sequence[FeedbackScored], rule: MonitorSettings
) -> None:
    """Keep what counts of feedback on a model's answers, in its order: nobody's opinion more than
    `rewards_per_user` times.

    A retraction is no opinion. What was said of a version that neither answers nor did before is of
    no use any more.
    """
    opinions = [
        # What applications make up may hold what a database does not take.
        (event, event.model_version, identity("feedback", event.identity), author_id(event))
        for event in feedback
        if event.feedback_type != "retracted"
        and event.model_version is not None
        and event.model_version in (row.champion, row.previous)
    ]
    if not opinions:
        return
    kept = _StoredRewards(
        session, row, [name for _, _, name, _ in opinions], [who for *_, who in opinions]
    )
    for event, version, name, who in opinions:
        known = event.user_id is None or kept.has_heard_on_another(who, version)
        if (
            kept.has(name)
            or kept.of_user(who, version) >= rule.rewards_per_user
            or kept.of_version(version, known) >= rule.most_rewards
        ):
            continue
        kept.add(name, who, version, known)
        session.add(
            LiveRewardRow(
                model=row.model,
                version=version,
                feedback_id=name,
                who=who,
                known=known,
                reward=event.reward,
                move=row.move,
            )
        )
    session.flush()


class _StoredRewards:
    """What is kept already, as far as some feedback asks: three queries, however much there is of
    it.
    """

    def __init__(
        self, session: Session, row: AliasRow, names: Sequence[str], users: Sequence[str]
    ) -> None:
        ours = LiveRewardRow.model == row.model
        self._names = set(
            session.scalars(
                select(LiveRewardRow.feedback_id).where(ours, LiveRewardRow.feedback_id.in_(names))
            )
        )
        self._users: dict[str, Counter[str]] = {}
        of_users = select(LiveRewardRow.who, LiveRewardRow.version, func.count()).where(
            ours, LiveRewardRow.who.in_(users)
        )
        for who, version, count in session.execute(
            of_users.group_by(LiveRewardRow.who, LiveRewardRow.version)
        ):
            self._users.setdefault(who, Counter())[version] = count
        answering = LiveRewardRow.version.in_(
            [version for version in (row.champion, row.previous) if version is not None]
        )
        of_versions = select(LiveRewardRow.version, LiveRewardRow.known, func.count()).where(
            ours, answering
        )
        self._versions: Counter[tuple[str, bool]] = Counter()
        for version, known, count in session.execute(
            of_versions.group_by(LiveRewardRow.version, LiveRewardRow.known)
        ):
            self._versions[version, known] = count

    def has(self, name: str) -> bool:
        return name in self._names

    def of_user(self, who: str, version: str) -> int:
        return self._users.get(who, Counter())[version]

    def has_heard_on_another(self, who: str, version: str) -> bool:
        return any(other != version for other in self._users.get(who, ()))

    def of_version(self, version: str, known: bool) -> int:
        return self._versions[version, known]

    def add(self, name: str, who: str, version: str, known: bool) -> None:
        self._names.add(name)
        self._users.setdefault(who, Counter())[version] += 1
        self._versions[version, known] += 1
