"""What live feedback says of the versions that it was given on: kept by version, and the champion
rolled back when it does worse.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select

from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.live_rewards import store_rewards
from services.registry.rollout.sequential_test import LiveEvidence, compute_evidence, is_worse
from services.registry.store.database import Session
from services.registry.store.queries import hold_of, lock_aliases
from services.registry.store.tables import AliasRow, AuditRow, LiveRewardRow
from services.registry.versions.moves import roll_back
from shared.config.model_file import ModelFile
from shared.config.monitor import MonitorSettings
from shared.events import FeedbackScored, VersionRolledBack

ACTOR = "monitor"


@dataclass(frozen=True, slots=True)
class MonitorResult:
    """What came of some rewards: the evidence where there is a champion to watch, whether it is
    worse, and the move that followed.
    """

    evidence: LiveEvidence | None = None
    worse: bool = False
    moved: VersionRolledBack | None = None


def monitor_live_rewards(
    session: Session, model: ModelFile, feedback: Sequence[FeedbackScored], now: datetime
) -> MonitorResult:
    """Keep the rewards of feedback on a model's answers, and see whether its champion still does as
    well as the version before it.
    """
    row = lock_aliases(session, model.model)
    if row is None:
        return MonitorResult()
    store_rewards(session, row, feedback, model.monitor)
    return _check_champion(session, row, model.monitor, now)


def _check_champion(
    session: Session, row: AliasRow, rule: MonitorSettings, now: datetime
) -> MonitorResult:
    if row.champion is None or row.previous is None or not _was_promoted(session, row):
        return MonitorResult()
    since = _rewards(session, row.model, row.champion, since=row.move)
    found = compute_evidence(since, _rewards(session, row.model, row.previous), rule)
    if not is_worse(found, rule):
        return MonitorResult(found)
    if not rule.acts or hold_of(session, row.model) is not None:
        return MonitorResult(found, worse=True)
    reason = (
        f"in live use {row.champion} earns {found.champion:+.2f} on average where "
        f"{row.previous} earned {found.previous:+.2f}, "
        f"over {found.pairs} rewards of each"
    )
    event, _ = roll_back(
        session, row.model, None, reason, ACTOR, now, {"live": asdict(found), "error": rule.error}
    )
    hold_if_too_often(session, row.model, ACTOR, rule.rollbacks_per_day, now)
    return MonitorResult(found, worse=True, moved=event)


def _was_promoted(session: Session, row: AliasRow) -> bool:
    """Whether the champion is there by promotion. One that somebody went back to is not watched:
    going to and fro helps nobody.
    """
    moves = select(AuditRow.action).where(
        AuditRow.model == row.model, AuditRow.action.in_(("found", "promote", "roll_back"))
    )
    return session.scalar(moves.order_by(AuditRow.id.desc()).limit(1)) == "promote"


def _rewards(
    session: Session, model: str, version: str, since: int | None = None
) -> Sequence[float]:
    """In the order in which they came. Of the champion, those since its move `since`, and none of
    strangers: whoever wants a version gone has to have used the one before it.
    """
    rewards = select(LiveRewardRow.reward).where(
        LiveRewardRow.model == model, LiveRewardRow.version == version
    )
    if since is not None:
        rewards = rewards.where(LiveRewardRow.move == since, LiveRewardRow.known)
    return session.scalars(rewards.order_by(LiveRewardRow.id)).all()
