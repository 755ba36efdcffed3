"""Canary trials: started by the gate, decided by rewards of routed users, frozen by a hold, and
ended by a move of the champion.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from services.registry.api.views import model_view
from services.registry.handlers import HandlerContext, checkpoint_saved, training_rolled_back
from services.registry.rollout.canary_test import in_canary_share
from services.registry.rollout.canary_trial import (
    TrialStatus,
    deadline,
    evaluate_trial,
    update_share,
)
from services.registry.rollout.holds import hold, release
from services.registry.rollout.live_monitor import monitor_live_rewards
from services.registry.store.queries import canary_trial_of, history_of, hold_of
from services.registry.store.tables import (
    CanaryRewardRow,
    CanaryTargetRow,
    CanaryTrialRow,
    LiveRewardRow,
    RunRow,
)
from services.registry.versions.moves import promote_by_operator, roll_back
from shared.config.canary import CanarySettings
from shared.events import FeedbackScored, VersionPromoted, VersionRegistered, VersionWithdrawn
from tests.support.registry_events import (
    CONTEXT,
    MODEL,
    NOW,
    DatabaseFixture,
    checkpoint,
    feedback,
    introduce,
    rejection,
)

RULE = CanarySettings(share=0.5, rewards=60, hours=48, minimum_rewards=10)
WITH_CANARY = MODEL.model_copy(update={"canary": RULE})
TARGETS = ["ollama"]
CANARY = HandlerContext(NOW, canary=RULE)
LATER = NOW + timedelta(hours=RULE.hours)


class Trial:
    """A model with existing users and a challenger on a canary trial."""

    def __init__(self, registry_db: DatabaseFixture, ready: bool = True) -> None:
        self.registry_db, self.base = registry_db, registry_db.champion
        self.users = [f"user {number}" for number in range(200)]
        earlier = [feedback(self.base, 0.5, user) for user in self.users]
        introduce(registry_db, self.users)
        registry_db.run(lambda session: monitor_live_rewards(session, MODEL, earlier, NOW))
        (self.registered,) = registry_db.run(
            lambda session: checkpoint_saved(session, checkpoint("r1", self.base), CANARY)
        )
        assert isinstance(self.registered, VersionRegistered)
        self.version = self.registered.version
        if ready:
            self.serve()

    def serve(self) -> None:
        target_row = CanaryTargetRow(
            model="support",
            version=self.version,
            target="ollama",
            state="ready",
            digest="d",
            reason="",
            at=NOW,
        )
        self.registry_db.run(lambda session: session.add(target_row))

    def users_of(self, version: str) -> list[str]:
        """Return the users that are routed to a version."""
        return [
            user
            for user in self.users
            if in_canary_share("support", self.version, "user", user, RULE.share)
            == (version == self.version)
        ]

    def evaluate(
        self, events: Sequence[FeedbackScored] = (), now: datetime = NOW
    ) -> TrialStatus | None:
        return self.registry_db.run(
            lambda session: evaluate_trial(session, WITH_CANARY, TARGETS, now, events)
        )

    def ratings(self, challenger: float, champion: float, count: int = 60) -> list[FeedbackScored]:
        """Return alternating feedback on both versions, of users routed to them."""
        pairs = zip(
            self.users_of(self.version)[:count], self.users_of(self.base)[:count], strict=True
        )
        return [
            event
            for a, b in pairs
            for event in (feedback(self.version, challenger, a), feedback(self.base, champion, b))
        ]

    @property
    def row(self) -> CanaryTrialRow | None:
        return self.registry_db.run(lambda session: canary_trial_of(session, "support"))

    @property
    def stored_rewards(self) -> int:
        return self.registry_db.run(
            lambda session: session.scalar(select(func.count()).select_from(CanaryRewardRow)) or 0
        )


@pytest.fixture
def trial(registry_db: DatabaseFixture) -> Trial:
    return Trial(registry_db)


def test_gate_promotion_starts_a_trial_and_ends_the_run(trial: Trial) -> None:
    assert isinstance(trial.registered, VersionRegistered)
    assert (trial.registered.answer, trial.registered.champion) == ("held", trial.base)
    assert (trial.registry_db.champion, trial.registry_db.aliases.challenger) == (
        trial.base,
        trial.version,
    )
    run = trial.registry_db.run(lambda session: session.get(RunRow, "r1"))
    assert run is not None
    assert (run.state, run.reason) == (
        "held",
        "canary trial running; promoted unless users rate it lower",
    )
    assert trial.row is not None
    assert deadline(trial.row) == LATER
    assert trial.evaluate() == TrialStatus(trial.evaluate().evidence), "no evidence yet"  # type: ignore[union-attr]


def test_worse_challenger_is_withdrawn_and_its_batch_quarantined(trial: Trial) -> None:
    status = trial.evaluate(trial.ratings(-0.8, 0.6))
    assert status is not None
    assert isinstance(status.ending, VersionWithdrawn)
    assert (status.ending.version, status.ending.champion, status.ending.batch_id) == (
        trial.version,
        trial.base,
        "batch of r1",
    )
    assert status.ending.quarantined
    assert (trial.registry_db.champion, trial.registry_db.aliases.challenger) == (trial.base, None)
    assert trial.row is None
    assert trial.stored_rewards == 0
    audit = trial.registry_db.run(lambda session: history_of(session, "support", 1))[0]
    assert (audit.actor, audit.action, audit.to_version) == ("canary", "withdraw", trial.version)
    assert audit.evidence["trial"]["worse"] >= 1 / RULE.error
    assert "-0.80" in audit.reason
    assert trial.evaluate(trial.ratings(1, -1)) is None


def test_better_challenger_is_promoted_at_once(trial: Trial) -> None:
    status = trial.evaluate(trial.ratings(0.8, -0.6, count=40))
    assert status is not None
    assert isinstance(status.ending, VersionPromoted)
    assert (status.ending.version, status.ending.previous, status.ending.actor) == (
        trial.version,
        trial.base,
        "canary",
    )
    assert (trial.registry_db.champion, trial.registry_db.aliases.challenger) == (
        trial.version,
        None,
    )
    assert status.ending.reason.startswith("better: in the canary trial it earned +0.80")


def test_equal_challenger_is_promoted_after_enough_rewards(trial: Trial) -> None:
    events = trial.ratings(0.5, 0.5)
    assert trial.evaluate(events[:-1]) is not None
    assert trial.row is not None
    status = trial.evaluate(events[-1:])
    assert status is not None
    assert isinstance(status.ending, VersionPromoted)
    assert status.ending.reason.startswith("not worse")
    assert f"over {RULE.rewards} rewards of each" in status.ending.reason


def test_challenger_without_rewards_is_promoted_at_the_deadline(trial: Trial) -> None:
    assert trial.evaluate(now=LATER - timedelta(seconds=1)) is not None
    assert trial.row is not None
    status = trial.evaluate(now=LATER)
    assert status is not None
    assert isinstance(status.ending, VersionPromoted)


def test_challenger_not_served_is_withdrawn_without_quarantine(
    registry_db: DatabaseFixture,
) -> None:
    trial = Trial(registry_db, ready=False)
    target_row = CanaryTargetRow(
        model="support",
        version=trial.version,
        target="ollama",
        state="failed",
        digest=None,
        reason="verify: slow",
        at=NOW,
    )
    registry_db.run(lambda session: session.add(target_row))
    status = trial.evaluate(now=LATER)
    assert status is not None
    assert isinstance(status.ending, VersionWithdrawn)
    assert not status.ending.quarantined
    assert "ollama: verify: slow" in status.ending.reason
    assert registry_db.champion == trial.base


def test_each_reward_counts_once_and_pairs_with_the_next(trial: Trial) -> None:
    new, old = trial.users_of(trial.version), trial.users_of(trial.base)
    events = [
        feedback(trial.base, -1.0, old[0]),  # no reward is unpaired
        feedback(trial.version, 0.1, new[0], name="first"),
        feedback(trial.version, 0.2, new[1]),
        feedback(trial.base, 0.3, old[1], name="third"),
        feedback(trial.base, 0.4, old[2]),
    ]
    trial.evaluate(events)
    trial.evaluate([events[1], events[3]])
    rows = trial.registry_db.run(
        lambda session: session.scalars(select(CanaryRewardRow).order_by(CanaryRewardRow.id)).all()
    )
    assert [(row.reward, row.other_reward) for row in rows] == [(0.1, 0.3), (0.2, 0.4)]


def test_feedback_of_users_not_routed_to_a_version_is_ignored(trial: Trial) -> None:
    new, old = trial.users_of(trial.version), trial.users_of(trial.base)
    trial.evaluate([feedback(trial.version, -1.0, user) for user in old])
    trial.evaluate([feedback(trial.version, -1.0, None)])
    trial.evaluate(
        [
            feedback(trial.version, -1.0, new[0], "retracted"),
            feedback("v9_x", -1.0, new[0]),
            feedback(None, -1.0, new[0]),
        ]
    )
    assert trial.stored_rewards == 0
    trial.evaluate([feedback(trial.version, 1.0, new[0])])
    trial.evaluate([feedback(trial.base, 1.0, new[0])])
    assert trial.stored_rewards == 1
    assert trial.evaluate().evidence.pairs == 0  # type: ignore[union-attr]


def test_new_or_prolific_users_do_not_end_a_trial(trial: Trial) -> None:
    new_users = [f"stranger {number}" for number in range(400)]
    trial.evaluate([feedback(trial.version, -1.0, new_user) for new_user in new_users])
    assert trial.stored_rewards == 0
    trial.evaluate(
        [feedback(trial.version, -1.0, trial.users_of(trial.version)[0]) for _ in range(50)]
    )
    assert trial.stored_rewards == RULE.rewards_per_user
    trial.evaluate([feedback(trial.base, 1.0, trial.users_of(trial.base)[0]) for _ in range(50)])
    assert trial.evaluate().evidence.pairs == RULE.rewards_per_user  # type: ignore[union-attr]
    assert trial.row is not None


def test_invented_conversations_do_not_count(trial: Trial) -> None:
    talks = [f"talk {number}" for number in range(40)]
    events = [
        feedback(trial.version, 0.5, None).model_copy(update={"conversation_id": talk})
        for talk in talks
    ]
    trial.evaluate(events)
    assert any(
        in_canary_share("support", trial.version, "conversation", talk, RULE.share)
        for talk in talks
    )
    assert trial.stored_rewards == 0


def test_candidate_during_a_trial_is_set_aside(trial: Trial) -> None:
    (answer,) = trial.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", trial.base), CANARY)
    )
    assert isinstance(answer, VersionRegistered)
    assert (answer.answer, answer.champion) == ("held", trial.base)
    assert trial.registry_db.aliases.challenger == trial.version
    audit = trial.registry_db.run(lambda session: history_of(session, "support", 1))[0]
    assert (audit.action, audit.to_version, audit.reason) == (
        "set_aside",
        answer.version,
        f"run r2, evaluation 1: {trial.version} is on a canary trial",
    )
    assert (
        trial.registry_db.run(
            lambda session: checkpoint_saved(session, checkpoint("r2", trial.base, 2), CANARY)
        )
        == []
    ), "its run has ended"
    trial.evaluate(trial.ratings(-0.8, 0.6))
    assert trial.registry_db.aliases.challenger is None, (
        "it may be trained on the batch that is now quarantined"
    )
    trial.registry_db.run(
        lambda session: promote_by_operator(
            session, "support", answer.version, "I looked at it", NOW
        )
    )
    assert trial.registry_db.champion == answer.version


def test_stale_verdict_during_a_trial_does_not_affect_it(
    trial: Trial,
) -> None:
    old = trial.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r2", "v9_20260101_000000"), CANARY)
    )[0]
    assert isinstance(old, VersionRegistered)
    assert old.answer == "reevaluate"
    assert trial.row is not None
    assert trial.registry_db.aliases.challenger == trial.version
    trial.registry_db.run(
        lambda session: training_rolled_back(
            session, rejection("r2", trial.base, evaluation=2), CONTEXT
        )
    )
    assert trial.row is not None
    (again,) = trial.registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r3", trial.base), CANARY)
    )
    assert isinstance(again, VersionRegistered)
    assert again.answer == "held"


def test_operator_promotion_of_the_challenger_ends_its_trial(trial: Trial) -> None:
    trial.evaluate(trial.ratings(0.5, 0.5, count=20))
    assert trial.stored_rewards == 20
    trial.registry_db.run(
        lambda session: promote_by_operator(session, "support", None, "good enough", NOW)
    )
    assert (trial.registry_db.champion, trial.row, trial.stored_rewards) == (trial.version, None, 0)


def test_champion_move_ends_a_trial_and_an_operator_decides(registry_db: DatabaseFixture) -> None:
    first = registry_db.champion
    registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r0", first), CONTEXT))
    trial = Trial(registry_db)
    registry_db.run(lambda session: roll_back(session, "support", None, "by hand", "operator", NOW))
    assert trial.row is None
    assert (registry_db.champion, registry_db.aliases.challenger) == (first, trial.version)
    assert trial.evaluate(now=LATER) is None
    assert registry_db.champion == first


def test_hold_freezes_a_trial(trial: Trial) -> None:
    held_at, lifted = NOW + timedelta(hours=10), NOW + timedelta(hours=40)
    trial.registry_db.run(
        lambda session: hold(session, "support", "operator", "an incident", held_at)
    )
    assert trial.evaluate(trial.ratings(-0.8, 0.6), held_at) is None
    assert trial.evaluate(now=LATER) is None
    assert trial.row is not None
    assert trial.stored_rewards == 0
    trial.registry_db.run(
        lambda session: release(session, "support", "operator", "it was nothing", lifted)
    )
    assert trial.row is not None
    assert deadline(trial.row) == LATER + timedelta(hours=30)
    status = trial.evaluate(now=LATER)
    assert status is not None
    assert status.ending is None


def test_model_on_hold_starts_no_trial(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    registry_db.run(lambda session: hold(session, "support", "operator", "an incident", NOW))
    (answer,) = registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r1", base), CANARY)
    )
    assert isinstance(answer, VersionRegistered)
    assert answer.answer == "held"
    assert registry_db.aliases.challenger == answer.version
    assert registry_db.run(lambda session: canary_trial_of(session, "support")) is None


def test_model_is_held_after_too_many_withdrawals_a_day(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    trial = Trial(registry_db)
    for run in ("r1", "r2"):
        if run == "r2":
            (registered,) = registry_db.run(
                lambda session: checkpoint_saved(session, checkpoint("r2", base), CANARY)
            )
            assert isinstance(registered, VersionRegistered)
            trial.version = registered.version
            trial.serve()
        assert registry_db.run(lambda session: hold_of(session, "support")) is None
        trial.evaluate(trial.ratings(-0.8, 0.6))
    active_hold = registry_db.run(lambda session: hold_of(session, "support"))
    assert active_hold is not None
    assert active_hold.actor == "canary"


def test_only_the_share_may_change_during_a_trial(trial: Trial) -> None:
    more = WITH_CANARY.model_copy(
        update={"canary": CanarySettings(share=0.3, rewards=1000, hours=1)}
    )
    trial.registry_db.run(lambda session: update_share(session, more))
    assert trial.row is not None
    assert CanarySettings.model_validate(trial.row.rule) == RULE.model_copy(update={"share": 0.3})


def test_model_view_shows_the_trial(trial: Trial) -> None:
    trial.evaluate(trial.ratings(0.5, 0.25, count=12))
    shown = trial.registry_db.run(lambda session: model_view(session, "support"))["trial"]
    assert (shown["version"], shown["champion"], shown["share"], shown["until"]) == (
        trial.version,
        trial.base,
        RULE.share,
        LATER,
    )
    assert (shown["pairs"], shown["of"], shown["challenger_mean"], shown["champion_mean"]) == (
        12,
        60,
        0.5,
        0.25,
    )
    assert shown["enough"] == pytest.approx(50)
    assert shown["better"] > 1 > shown["worse"]
    assert not shown["frozen"]
    assert [(target["target"], target["state"]) for target in shown["places"]] == [
        ("ollama", "ready")
    ]


def test_trial_does_not_affect_the_monitors_rewards(trial: Trial) -> None:
    """The monitor's rewards are unchanged; it ignores feedback on a challenger."""
    before = trial.registry_db.run(
        lambda session: session.scalar(select(func.count()).select_from(LiveRewardRow))
    )
    trial.registry_db.run(
        lambda session: monitor_live_rewards(
            session, MODEL, [feedback(trial.version, 1.0, "user 1")], NOW
        )
    )
    assert (
        trial.registry_db.run(
            lambda session: session.scalar(select(func.count()).select_from(LiveRewardRow))
        )
        == before
    )
