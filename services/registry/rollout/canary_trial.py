"""Trials of challengers, in a transaction: begun when the gate promotes, heard, and ended by
promotion or withdrawal.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select

from services.registry.rollout.canary_test import (
    IdentityKind,
    TrialEvidence,
    decide_trial,
    evaluate_pairs,
    in_canary_share,
)
from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.live_rewards import author_id
from services.registry.store.database import Session
from services.registry.store.outbox import enqueue
from services.registry.store.queries import (
    canary_targets_of,
    canary_trial_of,
    hold_of,
    lock_aliases,
)
from services.registry.store.tables import (
    CanaryRewardRow,
    CanaryTrialRow,
    Json,
    LiveRewardRow,
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
    """A trial as it stands: what was heard, and the event that ended it, if something did."""

    evidence: TrialEvidence
    ending: TrialEnding | None = None


def begin_trial(
    session: Session, version: VersionRow, champion: str, rule: CanarySettings, now: datetime
) -> None:
    """A version that has just become challenger is on trial beside `champion`."""
    newest = (
        session.scalar(
            select(func.max(LiveRewardRow.id)).where(LiveRewardRow.model == version.model)
        )
        or 0
    )
    trial = CanaryTrialRow(
        model=version.model,
        version=version.name,
        champion=champion,
        began=now,
        heard_before=newest,
        frozen_seconds=0.0,
    )
    trial.rule = rule.model_dump()
    session.add(trial)
    session.flush()


def update_share(session: Session, model: ModelFile) -> None:
    """Let the trial that is on go on with the share that the model file says now."""
    trial = canary_trial_of(session, model.model) if lock_aliases(session, model.model) else None
    if trial is not None and model.canary is not None:
        trial.rule = trial.rule | {"share": model.canary.share}


def trial_rule(trial: CanaryTrialRow) -> CanarySettings:
    return CanarySettings.model_validate(trial.rule)


def deadline(trial: CanaryTrialRow) -> datetime:
    """When a trial's time runs out; the time on hold does not count."""
    return trial.began + timedelta(hours=trial_rule(trial).hours, seconds=trial.frozen_seconds)


def is_served(session: Session, trial: CanaryTrialRow, targets: Collection[str]) -> bool:
    """Whether the challenger answers at all of `places`, the targets that can serve it beside the
    champion.
    """
    return set(targets) <= {
        row.target for row in canary_targets_of(session, trial) if row.state == "ready"
    }


def trial_evidence(session: Session, trial: CanaryTrialRow) -> TrialEvidence:
    """The evidence of the opinions that have their partner. They get it in the order in which they
    came.
    """
    rows = (
        select(CanaryRewardRow)
        .where(CanaryRewardRow.model == trial.model)
        .order_by(CanaryRewardRow.id)
    )
    pairs = [
        (row.reward, row.other_reward)
        for row in session.scalars(rows)
        if row.other_reward is not None
    ]
    return evaluate_pairs(
        [earned for earned, _ in pairs], [other for _, other in pairs], trial_rule(trial)
    )


def evaluate_trial(
    session: Session,
    model: ModelFile,
    targets: Collection[str],
    now: datetime,
    feedback: Sequence[FeedbackScored] = (),
) -> TrialStatus | None:
    """Hear what users said, and end the trial that is on when enough is known; None without one,
    and while the model is on hold.
    """
    row = lock_aliases(session, model.model)
    trial = canary_trial_of(session, model.model) if row else None
    if row is None or trial is None or hold_of(session, model.model) is not None:
        return None
    served = is_served(session, trial, targets)
    for event in feedback if served else ():
        _record_reward(session, trial, event)
    heard = trial_evidence(session, trial)
    is_over = now >= deadline(trial)
    outcome = decide_trial(heard, trial_rule(trial), is_over)
    if is_over and not served:
        failed = "; ".join(
            f"{place.target}: {place.reason}"
            for place in canary_targets_of(session, trial)
            if place.state != "ready"
        )
        reason = (
            f"it was not served beside {trial.champion} within its time: "
            f"{failed or 'nothing was heard of its targets'}"
        )
        return TrialStatus(heard, _withdraw(session, trial, heard, reason, now, quarantined=False))
    if outcome is None:
        return TrialStatus(heard)
    earned = (
        f"on trial it earned {heard.challenger:+.2f} on average, {trial.champion} "
        f"{heard.champion:+.2f}, over {heard.pairs} rewards of each"
    )
    reason = f"{outcome}: {earned}"
    if outcome == "worse":
        withdrawn = _withdraw(session, trial, heard, reason, now, quarantined=True)
        hold_if_too_often(session, model.model, ACTOR, model.monitor.rollbacks_per_day, now)
        return TrialStatus(heard, withdrawn)
    version = require_version(session, model.model, trial.version)
    return TrialStatus(
        heard,
        promote(
            session,
            version,
            ACTOR,
            reason,
            _audit_evidence(trial, heard),
            now,
            f"move {row.move + 1}",
        ),
    )


def _record_reward(session: Session, trial: CanaryTrialRow, event: FeedbackScored) -> None:
    """Keep an opinion of the challenger, or pair one of the champion with the first that waits for
    it.

    What counts is said by users who were heard before the trial (or who are not known at all), of
    the version that answers them, not more than `rewards_per_user` times: whoever comes to have a
    challenger removed, or promoted, is not asked.
    """
    rule = trial_rule(trial)
    if event.feedback_type == "retracted" or not _matches_assignment(trial, event, rule.share):
        return
    who, feedback_id = author_id(event), identity("feedback", event.identity)
    ours = select(func.count()).where(CanaryRewardRow.model == trial.model)
    if session.scalar(
        ours.where(
            or_(
                CanaryRewardRow.feedback_id == feedback_id,
                CanaryRewardRow.other_feedback_id == feedback_id,
            )
        )
    ):
        return
    before = select(LiveRewardRow.id).where(
        LiveRewardRow.model == trial.model,
        LiveRewardRow.who == who,
        LiveRewardRow.id <= trial.heard_before,
    )
    if event.user_id is not None and session.scalar(before.limit(1)) is None:
        return
    if event.model_version == trial.version:
        said = session.scalar(ours.where(CanaryRewardRow.who == who)) or 0
        if said < rule.rewards_per_user and (session.scalar(ours) or 0) < rule.rewards:
            session.add(
                CanaryRewardRow(
                    model=trial.model, feedback_id=feedback_id, who=who, reward=event.reward
                )
            )
    elif (
        session.scalar(ours.where(CanaryRewardRow.other_who == who)) or 0
    ) < rule.rewards_per_user:
        waits = select(CanaryRewardRow).where(
            CanaryRewardRow.model == trial.model, CanaryRewardRow.other_reward.is_(None)
        )
        if (first := session.scalar(waits.order_by(CanaryRewardRow.id).limit(1))) is not None:
            first.other_feedback_id, first.other_who, first.other_reward = (
                feedback_id,
                who,
                event.reward,
            )
    session.flush()


def _matches_assignment(trial: CanaryTrialRow, event: FeedbackScored, share: float) -> bool:
    """Whether the version that an opinion is of is one that answers whoever has it."""
    if event.model_version not in (trial.version, trial.champion):
        return False
    named: list[tuple[IdentityKind, str | None]] = [
        ("user", event.user_id),
        ("conversation", event.conversation_id),
    ]
    tried = event.model_version == trial.version
    return any(
        in_canary_share(trial.model, trial.version, kind, who, share) == tried
        for kind, who in named
        if who is not None
    )


def _withdraw(
    session: Session,
    trial: CanaryTrialRow,
    evidence: TrialEvidence,
    reason: str,
    now: datetime,
    quarantined: bool,
) -> VersionWithdrawn:
    version, champion = require_version(session, trial.model, trial.version), trial.champion
    move_aliases(session, "withdraw", version, ACTOR, reason, _audit_evidence(trial, evidence), now)
    event = VersionWithdrawn(
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
    enqueue(session, version.model, event, now)
    return event


def _audit_evidence(trial: CanaryTrialRow, evidence: TrialEvidence) -> Json:
    return {"trial": asdict(evidence) | {"champion_version": trial.champion}, "rule": trial.rule}
