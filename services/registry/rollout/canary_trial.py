"""Canary trials in a transaction: begun when the gate promotes a candidate, fed with live rewards,
and ended by promotion or withdrawal.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from services.registry.rollout.canary_test import (
    IdentityKind,
    TrialEvidence,
    decide_trial,
    evaluate_pairs,
    in_canary_share,
)
from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.known_users import KnownUsers, author_id
from services.registry.store.canary_queries import (
    count_challenger_rewards,
    count_champion_rewards,
    first_unpaired_reward,
    is_canary_feedback_stored,
    paired_canary_rewards,
)
from services.registry.store.database import Session
from services.registry.store.live_reward_queries import first_seen, newest_live_reward_id
from services.registry.store.queries import (
    canary_targets_of,
    canary_trial_of,
    hold_of,
    lock_aliases,
)
from services.registry.store.tables import (
    AliasRow,
    CanaryRewardRow,
    CanaryTrialRow,
    Json,
    VersionRow,
)
from services.registry.versions.moves import move_aliases, promote, require_version
from shared.config.canary import CanarySettings
from shared.config.model_file import ModelFile
from shared.events import FeedbackScored, VersionPromoted, VersionWithdrawn
from shared.identity import identity

ACTOR = "canary"

TrialEnding = VersionPromoted | VersionWithdrawn


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """Evidence of a trial, and the event that ended it, if any."""

    evidence: TrialEvidence
    ending: TrialEnding | None = None


def begin_trial(
    session: Session, version: VersionRow, champion: str, rule: CanarySettings, now: datetime
) -> None:
    """Start a trial of a version that has just become challenger of `champion`."""
    trial = CanaryTrialRow(
        model=version.model,
        version=version.name,
        champion=champion,
        began=now,
        heard_before=newest_live_reward_id(session, version.model),
        frozen_seconds=0.0,
    )
    trial.rule = rule.model_dump()
    session.add(trial)
    session.flush()


def update_share(session: Session, model: ModelFile) -> None:
    """Apply the share in the model file to a trial that has already begun."""
    trial = canary_trial_of(session, model.model) if lock_aliases(session, model.model) else None
    if trial is not None and model.canary is not None:
        trial.rule = trial.rule | {"share": model.canary.share}


def trial_rule(trial: CanaryTrialRow) -> CanarySettings:
    return CanarySettings.model_validate(trial.rule)


def deadline(trial: CanaryTrialRow) -> datetime:
    """Return the end of a trial's time; time on hold does not count."""
    return trial.began + timedelta(hours=trial_rule(trial).hours, seconds=trial.frozen_seconds)


def is_served(session: Session, trial: CanaryTrialRow, targets: Collection[str]) -> bool:
    """True if the challenger is served at all of `targets`, those that support canaries."""
    return set(targets) <= {
        row.target for row in canary_targets_of(session, trial) if row.state == "ready"
    }


def trial_evidence(session: Session, trial: CanaryTrialRow) -> TrialEvidence:
    """Compute the evidence of the paired rewards. Pairs are formed in order of arrival."""
    pairs = paired_canary_rewards(session, trial.model)
    return evaluate_pairs(
        [challenger for challenger, _ in pairs],
        [champion for _, champion in pairs],
        trial_rule(trial),
    )


def evaluate_trial(
    session: Session,
    model: ModelFile,
    targets: Collection[str],
    now: datetime,
    feedback: Sequence[FeedbackScored] = (),
) -> TrialStatus | None:
    """Record feedback, and end the trial in progress if its evidence or its time allows a decision;
    None without a trial, and while the model is on hold.
    """
    row = lock_aliases(session, model.model)
    trial = canary_trial_of(session, model.model) if row else None
    if row is None or trial is None or hold_of(session, model.model) is not None:
        return None
    served = is_served(session, trial, targets)
    known_users = KnownUsers.of(model, now, trial.began)
    for event in feedback if served else ():
        _record_reward(session, trial, event, known_users)
    evidence = trial_evidence(session, trial)
    is_over = now >= deadline(trial)
    if is_over and not served:
        reason = _not_served_reason(session, trial)
        return TrialStatus(
            evidence, _withdraw(session, trial, evidence, reason, now, quarantined=False)
        )
    outcome = decide_trial(evidence, trial_rule(trial), is_over)
    if outcome is None:
        return TrialStatus(evidence)
    reason = (
        f"{outcome}: in the canary trial it earned {evidence.challenger:+.2f} on average, "
        f"{trial.champion} {evidence.champion:+.2f}, over {evidence.pairs} rewards of each"
    )
    if outcome == "worse":
        ending = _withdraw(session, trial, evidence, reason, now, quarantined=True)
        hold_if_too_often(session, model.model, ACTOR, model.monitor.rollbacks_per_day, now)
        return TrialStatus(evidence, ending)
    return TrialStatus(evidence, _promote(session, row, trial, evidence, reason, now))


def _record_reward(
    session: Session, trial: CanaryTrialRow, event: FeedbackScored, known_users: KnownUsers
) -> None:
    """Store a reward of the challenger, or pair one of the champion with the challenger's oldest
    unpaired one.

    Only rewards of known users count, for the version that the user is routed to, at most
    `rewards_per_user` each: nobody new can have a challenger removed or promoted.
    """
    rule, model = trial_rule(trial), trial.model
    if (
        event.feedback_type == "retracted"
        or event.user_id is None
        or not _matches_assignment(trial, event, rule.share)
    ):
        return
    author, feedback_id = author_id(event), identity("feedback", event.identity)
    if is_canary_feedback_stored(session, model, feedback_id):
        return
    if not known_users.include(author, first_seen(session, model, author)):
        return
    if event.model_version == trial.version:
        if (
            count_challenger_rewards(session, model, author) < rule.rewards_per_user
            and count_challenger_rewards(session, model) < rule.rewards
        ):
            session.add(
                CanaryRewardRow(
                    model=model, feedback_id=feedback_id, who=author, reward=event.reward
                )
            )
    elif (
        count_champion_rewards(session, model, author) < rule.rewards_per_user
        and (first := first_unpaired_reward(session, model)) is not None
    ):
        first.other_feedback_id, first.other_who, first.other_reward = (
            feedback_id,
            author,
            event.reward,
        )
    session.flush()


def _matches_assignment(trial: CanaryTrialRow, event: FeedbackScored, share: float) -> bool:
    """True if this user is routed to the version that the feedback rates."""
    if event.model_version not in (trial.version, trial.champion):
        return False
    identifiers: list[tuple[IdentityKind, str | None]] = [
        ("user", event.user_id),
        ("conversation", event.conversation_id),
    ]
    rates_challenger = event.model_version == trial.version
    return any(
        in_canary_share(trial.model, trial.version, kind, identifier, share) == rates_challenger
        for kind, identifier in identifiers
        if identifier is not None
    )


def _not_served_reason(session: Session, trial: CanaryTrialRow) -> str:
    failures = "; ".join(
        f"{row.target}: {row.reason}"
        for row in canary_targets_of(session, trial)
        if row.state != "ready"
    )
    return (
        f"not served together with {trial.champion} within the time of its canary trial: "
        f"{failures or 'no target has reported a deployment'}"
    )


def _promote(
    session: Session,
    row: AliasRow,
    trial: CanaryTrialRow,
    evidence: TrialEvidence,
    reason: str,
    now: datetime,
) -> VersionPromoted:
    version = require_version(session, trial.model, trial.version)
    audit = _audit_evidence(trial, evidence)
    return promote(session, version, ACTOR, reason, audit, now, f"move {row.move + 1}")


def _withdraw(
    session: Session,
    trial: CanaryTrialRow,
    evidence: TrialEvidence,
    reason: str,
    now: datetime,
    quarantined: bool,
) -> VersionWithdrawn:
    version, champion = require_version(session, trial.model, trial.version), trial.champion
    audit = _audit_evidence(trial, evidence)
    move_aliases(session, "withdraw", version, ACTOR, reason, audit, now)
    return VersionWithdrawn(
        event_id=identity("withdrawn", version.model, version.name),
        occurred_at=now,
        model=version.model,
        version=version.name,
        champion=champion,
        run_id=version.run_id,
        batch_id=version.batch_id,
        quarantined=quarantined,
        actor=ACTOR,
        reason=reason,
    )


def _audit_evidence(trial: CanaryTrialRow, evidence: TrialEvidence) -> Json:
    return {"trial": asdict(evidence) | {"champion_version": trial.champion}, "rule": trial.rule}
