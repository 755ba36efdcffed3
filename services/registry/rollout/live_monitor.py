"""Monitor of live rewards: store them by version, and roll the champion back if it does worse than
the version before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.live_rewards import store_rewards
from services.registry.rollout.sequential_test import LiveEvidence, compute_evidence, is_worse
from services.registry.store.audit_queries import last_champion_action
from services.registry.store.database import Session
from services.registry.store.live_reward_queries import known_live_rewards_since, live_rewards_of
from services.registry.store.queries import hold_of, lock_aliases
from services.registry.store.tables import AliasRow, Json
from services.registry.versions.moves import roll_back
from shared.config.model_file import ModelFile
from shared.config.monitor import MonitorSettings
from shared.events import FeedbackScored, VersionRolledBack

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
    session: Session, model: ModelFile, feedback: Sequence[FeedbackScored], now: datetime
) -> MonitorResult:
    """Store the rewards of feedback on a model's answers, and compare its champion with the version
    before it.
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
    # Only users seen on the previous version count, so that others cannot have a champion removed.
    evidence = compute_evidence(
        known_live_rewards_since(session, row.model, row.champion, row.move),
        live_rewards_of(session, row.model, row.previous),
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


def _was_promoted(session: Session, row: AliasRow) -> bool:
    """True if the champion was promoted. Rolled-back champions are not monitored, to avoid
    flip-flopping.
    """
    return last_champion_action(session, row.model) == "promote"


def _evidence_json(evidence: LiveEvidence) -> Json:
    """Return evidence as the audit log stores it, where the e-value is named `wealth`."""
    return {
        "pairs": evidence.pairs,
        "wealth": evidence.e_value,
        "champion": evidence.champion,
        "previous": evidence.previous,
    }
