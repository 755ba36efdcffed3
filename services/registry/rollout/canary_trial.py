"""Trials of challengers, in a transaction: begun when the gate promotes, heard, and ended by
promotion or withdrawal.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from services.registry.rollout.canary_test import Heard, Kind, decide, takes_part, weigh
from services.registry.rollout.holds import hold_if_too_often
from services.registry.rollout.live_rewards import who_said
from services.registry.store.outbox import enqueue
from services.registry.store.queries import hold_of, locked_aliases, places_of_trial, trial_of
from services.registry.store.tables import Json, LiveReward, TrialReward, TrialRow, Version
from services.registry.versions.moves import promote, require_version, shift
from shared.config.canary import CanaryRule
from shared.config.model_file import ModelFile
from shared.events import FeedbackScored, VersionPromoted, VersionWithdrawn
from shared.identity import identity

ACTOR = "canary"

Ended = VersionPromoted | VersionWithdrawn


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial as it stands: what was heard, and the event that ended it, if something did."""

    heard: Heard
    ended: Ended | None = None


def begin(
    session: Session, version: Version, champion: str, rule: CanaryRule, now: datetime
) -> None:
    """A version that has just become challenger is on trial beside `champion`."""
    newest = (
        session.scalar(select(func.max(LiveReward.id)).where(LiveReward.model == version.model))
        or 0
    )
    trial = TrialRow(
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


def take_over_share(session: Session, model: ModelFile) -> None:
    """Let the trial that is on go on with the share that the model file says now."""
    trial = trial_of(session, model.model) if locked_aliases(session, model.model) else None
    if trial is not None and model.canary is not None:
        trial.rule = trial.rule | {"share": model.canary.share}


def rule_of(trial: TrialRow) -> CanaryRule:
    return CanaryRule.model_validate(trial.rule)


def until(trial: TrialRow) -> datetime:
    """When a trial's time runs out; the time on hold does not count."""
    return trial.began + timedelta(hours=rule_of(trial).hours, seconds=trial.frozen_seconds)


def is_served(session: Session, trial: TrialRow, places: Collection[str]) -> bool:
    """Whether the challenger answers at all of `places`, the targets that can serve it beside the
    champion.
    """
    return set(places) <= {
        row.target for row in places_of_trial(session, trial) if row.state == "ready"
    }


def heard_of(session: Session, trial: TrialRow) -> Heard:
    """The evidence of the opinions that have their partner. They get it in the order in which they
    came.
    """
    rows = select(TrialReward).where(TrialReward.model == trial.model).order_by(TrialReward.id)
    pairs = [
        (row.reward, row.other_reward)
        for row in session.scalars(rows)
        if row.other_reward is not None
    ]
    return weigh([earned for earned, _ in pairs], [other for _, other in pairs], rule_of(trial))


def tried(
    session: Session,
    model: ModelFile,
    places: Collection[str],
    now: datetime,
    feedback: Sequence[FeedbackScored] = (),
) -> Tried | None:
    """Hear what users said, and end the trial that is on when enough is known; None without one,
    and while the model is on hold.
    """
    row = locked_aliases(session, model.model)
    trial = trial_of(session, model.model) if row else None
    if row is None or trial is None or hold_of(session, model.model) is not None:
        return None
    served = is_served(session, trial, places)
    for event in feedback if served else ():
        _hear(session, trial, event)
    heard = heard_of(session, trial)
    is_over = now >= until(trial)
    outcome = decide(heard, rule_of(trial), is_over)
    if is_over and not served:
        failed = "; ".join(
            f"{place.target}: {place.reason}"
            for place in places_of_trial(session, trial)
            if place.state != "ready"
        )
        reason = (
            f"it was not served beside {trial.champion} within its time: "
            f"{failed or 'nothing was heard of its targets'}"
        )
        return Tried(heard, _withdraw(session, trial, heard, reason, now, quarantined=False))
    if outcome is None:
        return Tried(heard)
    earned = (
        f"on trial it earned {heard.challenger:+.2f} on average, {trial.champion} "
        f"{heard.champion:+.2f}, over {heard.pairs} rewards of each"
    )
    reason = f"{outcome}: {earned}"
    if outcome == "worse":
        withdrawn = _withdraw(session, trial, heard, reason, now, quarantined=True)
        hold_if_too_often(session, model.model, ACTOR, model.monitor.rollbacks_per_day, now)
        return Tried(heard, withdrawn)
    version = require_version(session, model.model, trial.version)
    return Tried(
        heard,
        promote(
            session, version, ACTOR, reason, _evidence(trial, heard), now, f"move {row.move + 1}"
        ),
    )


def _hear(session: Session, trial: TrialRow, event: FeedbackScored) -> None:
    """Keep an opinion of the challenger, or pair one of the champion with the first that waits for
    it.

    What counts is said by users who were heard before the trial (or who are not known at all), of
    the version that answers them, not more than `rewards_per_user` times: whoever comes to have a
    challenger removed, or promoted, is not asked.
    """
    rule = rule_of(trial)
    if event.feedback_type == "retracted" or not _may_have_answered(trial, event, rule.share):
        return
    who, feedback_id = who_said(event), identity("feedback", event.identity)
    ours = select(func.count()).where(TrialReward.model == trial.model)
    if session.scalar(
        ours.where(
            or_(
                TrialReward.feedback_id == feedback_id, TrialReward.other_feedback_id == feedback_id
            )
        )
    ):
        return
    before = select(LiveReward.id).where(
        LiveReward.model == trial.model, LiveReward.who == who, LiveReward.id <= trial.heard_before
    )
    if event.user_id is not None and session.scalar(before.limit(1)) is None:
        return
    if event.model_version == trial.version:
        said = session.scalar(ours.where(TrialReward.who == who)) or 0
        if said < rule.rewards_per_user and (session.scalar(ours) or 0) < rule.rewards:
            session.add(
                TrialReward(
                    model=trial.model, feedback_id=feedback_id, who=who, reward=event.reward
                )
            )
    elif (session.scalar(ours.where(TrialReward.other_who == who)) or 0) < rule.rewards_per_user:
        waits = select(TrialReward).where(
            TrialReward.model == trial.model, TrialReward.other_reward.is_(None)
        )
        if (first := session.scalar(waits.order_by(TrialReward.id).limit(1))) is not None:
            first.other_feedback_id, first.other_who, first.other_reward = (
                feedback_id,
                who,
                event.reward,
            )
    session.flush()


def _may_have_answered(trial: TrialRow, event: FeedbackScored, share: float) -> bool:
    """Whether the version that an opinion is of is one that answers whoever has it."""
    if event.model_version not in (trial.version, trial.champion):
        return False
    named: list[tuple[Kind, str | None]] = [
        ("user", event.user_id),
        ("conversation", event.conversation_id),
    ]
    tried = event.model_version == trial.version
    return any(
        takes_part(trial.model, trial.version, kind, who, share) == tried
        for kind, who in named
        if who is not None
    )


def _withdraw(
    session: Session, trial: TrialRow, heard: Heard, reason: str, now: datetime, quarantined: bool
) -> VersionWithdrawn:
    version, champion = require_version(session, trial.model, trial.version), trial.champion
    shift(session, "withdraw", version, ACTOR, reason, _evidence(trial, heard), now)
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


def _evidence(trial: TrialRow, heard: Heard) -> Json:
    return {"trial": asdict(heard) | {"champion_version": trial.champion}, "rule": trial.rule}
