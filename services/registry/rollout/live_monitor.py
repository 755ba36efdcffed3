"""Monitor of live rewards: store them by version, and roll the champion back if it does worse than
the version before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.known_users import KnownUsers, author_id, user_author_id
from services.registry.rollout.live_rewards import store_rewards
from services.registry.rollout.sequential_test import LiveEvidence, compute_evidence, is_worse
from services.registry.store.audit_queries import champion_promoted_at
from services.registry.store.database import Session
from services.registry.store.live_reward_queries import (
    forget_user,
    known_live_rewards,
    record_users,
)
from services.registry.store.queries import hold_of, lock_aliases
from services.registry.store.tables import AliasRow, Json
from services.registry.versions.moves import roll_back
from shared.config.model_file import ModelFile
from shared.config.monitor import MonitorSettings
from shared.events import FeedbackScored, VersionRolledBack, WithdrawalRequested

ACTOR = "monitor"


@dataclass(frozen=True, slots=True)
class MonitorResult:
    """Result of some rewards: the evidence if a champion is monitored, whether it is worse, and the
    rollback that followed.
    """

    evidence: LiveEvidence | None = None
    worse: bool = False
    moved: VersionRolledBack | None = None


def monitor_live_rewards(
    session: Session,
    model: ModelFile,
    feedback: Sequence[FeedbackScored | WithdrawalRequested],
    now: datetime,
) -> MonitorResult:
    """Store the rewards of feedback on a model's answers, and compare its champion with the version
    before it. A withdrawal forgets its user.
    """
    row = lock_aliases(session, model.model)
    if row is None:
        return MonitorResult()
    promoted_at = champion_promoted_at(session, model.model)
    known_users = KnownUsers.of(model, now, promoted_at)
    for event_type, events in groupby(feedback, type):
        if event_type is WithdrawalRequested:
            for event in events:
                if isinstance(event, WithdrawalRequested):
                    forget_user(session, row.model, user_author_id(row.model, event.user_id))
            continue
        rated = [event for event in events if isinstance(event, FeedbackScored)]
        users = [author_id(event) for event in rated if event.user_id is not None]
        first_seen = record_users(session, row.model, users, now)
        store_rewards(session, row, rated, model.monitor, known_users, first_seen)
    return _check_champion(session, row, model.monitor, promoted_at, now)


def _check_champion(
    session: Session,
    row: AliasRow,
    rule: MonitorSettings,
    promoted_at: datetime | None,
    now: datetime,
) -> MonitorResult:
    # A champion that was rolled back to is not monitored, to avoid flip-flopping.
    if row.champion is None or row.previous is None or promoted_at is None:
        return MonitorResult()
    evidence = compute_evidence(
        known_live_rewards(session, row.model, row.champion, row.move),
        known_live_rewards(session, row.model, row.previous),
        rule,
    )
    if not is_worse(evidence, rule):
        return MonitorResult(evidence)
    if not rule.acts or hold_of(session, row.model) is not None:
        return MonitorResult(evidence, worse=True)
    reason = (
        f"in live use {row.champion} earns {evidence.champion:+.2f} on average, "
        f"{row.previous} earned {evidence.previous:+.2f}, over {evidence.pairs} rewards of each"
    )
    audit = {"live": _evidence_json(evidence), "error": rule.error}
    event, _ = roll_back(session, row.model, None, reason, ACTOR, now, audit)
    hold_if_too_often(session, row.model, ACTOR, rule.rollbacks_per_day, now)
    return MonitorResult(evidence, worse=True, moved=event)


def _evidence_json(evidence: LiveEvidence) -> Json:
    """Return evidence as the audit log stores it, where the e-value is named `wealth`."""
    return {
        "pairs": evidence.pairs,
        "wealth": evidence.e_value,
        "champion": evidence.champion,
        "previous": evidence.previous,
    }
