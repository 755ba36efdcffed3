"""Live monitor: rewards are stored once and limited per user; a worse champion is rolled back, and
after several rollbacks the model is put on hold.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from services.registry.handlers import checkpoint_saved, training_rolled_back
from services.registry.rollout.holds import hold, release
from services.registry.rollout.known_users import user_author_id
from services.registry.rollout.live_monitor import MonitorResult, monitor_live_rewards
from services.registry.store.live_reward_queries import (
    first_seen,
    forget_user,
    known_live_rewards,
)
from services.registry.store.queries import MeanReward, history_of, hold_of, rewards_by_version
from services.registry.store.tables import FeedbackUserRow, LiveRewardRow
from services.registry.versions.moves import UnknownVersion, promote_by_operator, roll_back
from shared.config.curation import CurationSettings
from shared.config.monitor import MonitorSettings
from shared.events import (
    FeedbackScored,
    Position,
    VersionRegistered,
    VersionRolledBack,
    WithdrawalRequested,
)
from shared.messaging.topics import FEEDBACK_RECEIVED
from shared.redaction.pseudonyms import pseudonym
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

USERS = [f"user {number}" for number in range(40)]


@pytest.fixture(autouse=True)
def known_users(registry_db: DatabaseFixture) -> None:
    introduce(registry_db, USERS)


def monitor(
    registry_db: DatabaseFixture,
    events: Sequence[FeedbackScored],
    rule: MonitorSettings | None = None,
    now: datetime = NOW,
) -> MonitorResult:
    model = MODEL.model_copy(update={"monitor": rule or MonitorSettings()})
    return registry_db.run(lambda session: monitor_live_rewards(session, model, events, now))


def who_rated(registry_db: DatabaseFixture) -> set[str]:
    return set(registry_db.run(lambda session: session.scalars(select(LiveRewardRow.who)).all()))


def ratings(
    version: str, reward: float, users: Sequence[str | None] = USERS
) -> list[FeedbackScored]:
    return [feedback(version, reward, user) for user in users]


def promoted(registry_db: DatabaseFixture, run: str) -> str:
    registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint(run, registry_db.champion), CONTEXT)
    )
    return registry_db.champion


def stored(registry_db: DatabaseFixture) -> int:
    return registry_db.run(
        lambda session: session.scalar(select(func.count()).select_from(LiveRewardRow)) or 0
    )


def test_rewards_are_stored_once_and_limited_per_user(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    same = feedback(base, 1.0, "ann", name="twice")
    monitor(registry_db, [same, same])
    monitor(registry_db, [same, *(feedback(base, 1.0, "ann") for _ in range(20))])
    assert stored(registry_db) == MonitorSettings().rewards_per_user
    monitor(registry_db, [feedback(base, 1.0, None) for _ in range(20)])
    assert stored(registry_db) == MonitorSettings().rewards_per_user + 20, (
        "without a user the author is the response"
    )


def test_feedback_on_other_versions_is_not_stored(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    monitor(
        registry_db,
        [
            feedback(None, 1.0, "ann"),
            feedback("v9_20260101_000000", 1.0, "bob"),
            feedback(base, 0.0, "cy", "retracted"),
        ],
    )
    assert stored(registry_db) == 0


def test_ids_with_nul_are_stored_once(registry_db: DatabaseFixture) -> None:
    odd = feedback(registry_db.champion, 1.0, "ann\x00", name="a\x00b")
    monitor(registry_db, [odd, odd])
    assert stored(registry_db) == 1


def test_only_the_first_rewards_of_a_version_are_stored(registry_db: DatabaseFixture) -> None:
    monitor(
        registry_db,
        ratings(registry_db.champion, 1.0),
        MonitorSettings(minimum_rewards=2, most_rewards=7),
    )
    assert stored(registry_db) == 7


def test_worse_champion_is_rolled_back_with_a_reason(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    monitor(registry_db, ratings(base, 0.8))
    worse = promoted(registry_db, "r1")
    result = monitor(registry_db, ratings(worse, -0.5))
    assert isinstance(result.moved, VersionRolledBack)
    assert (result.moved.version, result.moved.from_version, result.moved.actor) == (
        base,
        worse,
        "monitor",
    )
    assert "-0.50" in result.moved.reason
    assert "+0.80" in result.moved.reason
    assert registry_db.champion == base
    row = registry_db.run(lambda session: history_of(session, "support", 1))[0]
    assert (row.actor, row.action, row.to_version) == ("monitor", "roll_back", base)
    assert row.evidence["live"]["pairs"] == len(USERS)
    live = registry_db.run(lambda session: rewards_by_version(session, "support"))
    assert list(live) == [base, worse]
    assert {
        name: MeanReward(round(reward.mean, 6), reward.count) for name, reward in live.items()
    } == {
        base: MeanReward(0.8, 40),
        worse: MeanReward(-0.5, 40),
    }


def test_equally_good_champion_stays(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.5))
    newer = promoted(registry_db, "r1")
    result = monitor(registry_db, ratings(newer, 0.5))
    assert result.evidence is not None
    assert not result.worse
    assert registry_db.champion == newer


def test_new_users_do_not_cause_a_rollback(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    newer = promoted(registry_db, "r1")
    new_users = [f"stranger {number}" for number in range(200)]
    result = monitor(registry_db, ratings(newer, -1.0, new_users))
    assert result.evidence is not None
    assert result.evidence.pairs == 0
    assert registry_db.champion == newer


def test_feedback_without_a_user_causes_no_rollback(registry_db: DatabaseFixture) -> None:
    """Ten good ratings and twenty bad ones without a user once took a champion back."""
    rule = MonitorSettings(minimum_rewards=10)
    monitor(registry_db, ratings(registry_db.champion, 1.0, [None] * 10), rule)
    newer = promoted(registry_db, "r1")
    talks = [
        feedback(newer, -1.0, None).model_copy(update={"conversation_id": f"talk {number}"})
        for number in range(20)
    ]
    monitor(registry_db, [*ratings(newer, -1.0, [None] * 20), *talks], rule)
    assert registry_db.champion == newer


def test_unknown_users_do_not_raise_the_previous_version(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.5))
    monitor(registry_db, ratings(registry_db.champion, 1.0, [f"new {each}" for each in range(400)]))
    newer = promoted(registry_db, "r1")
    result = monitor(registry_db, ratings(newer, 0.5))
    assert result.evidence is not None
    assert (result.evidence.pairs, result.evidence.previous) == (len(USERS), 0.5)
    assert registry_db.champion == newer


@pytest.mark.parametrize(("hours", "moved"), [(23.9, False), (24.0, True)])
def test_users_count_after_a_day(registry_db: DatabaseFixture, hours: float, moved: bool) -> None:
    team = [f"colleague {number}" for number in range(40)]
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    monitor(registry_db, ratings("v9_x", 0.8, team), now=NOW - timedelta(hours=hours))
    newer = promoted(registry_db, "r1")
    monitor(registry_db, ratings(newer, -0.5, team))
    assert (registry_db.champion != newer) == moved


def test_users_of_the_new_version_alone_never_count(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    newer = promoted(registry_db, "r1")
    late = [f"late {number}" for number in range(40)]
    monitor(registry_db, ratings(newer, -1.0, late), now=NOW + timedelta(minutes=1))
    monitor(registry_db, ratings(newer, -1.0, late), now=NOW + timedelta(days=30))
    assert registry_db.champion == newer


def test_trusted_users_are_known_at_once(registry_db: DatabaseFixture) -> None:
    team = tuple(f"colleague {number}" for number in range(40))
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    newer = promoted(registry_db, "r1")
    model = MODEL.model_copy(update={"curation": CurationSettings(trusted_users=team)})
    names = [pseudonym("user", team[0]), *team[1:]]
    registry_db.run(
        lambda session: monitor_live_rewards(session, model, ratings(newer, -0.5, names), NOW)
    )
    assert registry_db.champion != newer


def test_each_known_user_counts_once(registry_db: DatabaseFixture) -> None:
    for _ in range(3):
        monitor(registry_db, ratings(registry_db.champion, 0.8))
    newer = promoted(registry_db, "r1")
    result = monitor(registry_db, ratings(newer, -1.0, USERS[:10] * 30))
    assert result.evidence is not None
    assert result.evidence.pairs == 10
    assert registry_db.champion == newer


def test_user_counts_once_known_after_an_unknown_rating(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    monitor(registry_db, [feedback(base, 1.0, "dee")])
    monitor(registry_db, [feedback(base, 1.0, "dee")], now=NOW + timedelta(days=1))
    rewards = registry_db.run(lambda session: known_live_rewards(session, "support", base))
    assert (list(rewards), stored(registry_db)) == ([1.0], 2)


def test_forgotten_user_is_unknown_again(registry_db: DatabaseFixture) -> None:
    base, ann = registry_db.champion, user_author_id("support", "user 1")
    monitor(registry_db, [feedback(base, 1.0, "user 1")])
    assert ann in who_rated(registry_db)
    forget = WithdrawalRequested(
        event_id="forget",
        occurred_at=NOW,
        model="support",
        shard=0,
        user_id="user 1",
        forgotten="asked",
        received=Position(topic=FEEDBACK_RECEIVED, partition=0, offset=0),
    )
    before_and_after = (feedback(base, 1.0, "user 2"), forget, feedback(base, 0.5, "user 1"))
    registry_db.run(lambda session: monitor_live_rewards(session, MODEL, before_and_after, NOW))
    assert stored(registry_db) == 3
    known = registry_db.run(lambda session: known_live_rewards(session, "support", base))
    assert list(known) == [1.0, 1.0], "what was decided stays"
    assert registry_db.run(lambda session: first_seen(session, "support", ann)) == NOW
    registry_db.run(lambda session: forget_user(session, "support", ann))
    assert ann not in who_rated(registry_db)


def test_users_without_feedback_for_long_are_deleted(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, [feedback(None, 1.0, USERS[0])], now=NOW + timedelta(days=50))
    monitor(registry_db, [feedback(None, 1.0, "somebody new")], now=NOW + timedelta(days=100))
    users = registry_db.run(lambda session: session.scalars(select(FeedbackUserRow.who)).all())
    assert set(users) == {user_author_id("support", user) for user in (USERS[0], "somebody new")}


def test_one_user_does_not_cause_a_rollback(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    newer = promoted(registry_db, "r1")
    monitor(registry_db, ratings(newer, -1.0, [USERS[0]] * 500))
    assert registry_db.champion == newer


def test_rolled_back_champion_is_not_monitored(registry_db: DatabaseFixture) -> None:
    base = registry_db.champion
    monitor(registry_db, ratings(base, -0.8))
    promoted(registry_db, "r1")
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    registry_db.run(lambda session: roll_back(session, "support", base, "by hand", "operator", NOW))
    assert monitor(registry_db, ratings(base, -1.0)) == MonitorResult()
    assert registry_db.champion == base


def test_monitor_without_permission_only_reports(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    worse = promoted(registry_db, "r1")
    result = monitor(registry_db, ratings(worse, -0.5), MonitorSettings(acts=False))
    assert result.worse
    assert result.moved is None
    assert registry_db.champion == worse


def test_model_is_held_after_too_many_rollbacks_a_day(
    registry_db: DatabaseFixture,
) -> None:
    rule = MonitorSettings(rollbacks_per_day=2)
    base = registry_db.champion
    monitor(registry_db, ratings(base, 0.8), rule)
    for number, expected in (("r1", False), ("r2", True)):
        worse = promoted(registry_db, number)
        assert monitor(registry_db, ratings(worse, -0.5), rule).moved is not None
        assert (
            registry_db.run(lambda session: hold_of(session, "support")) is not None
        ) == expected
    (answer,) = registry_db.run(
        lambda session: checkpoint_saved(session, checkpoint("r3", base), CONTEXT)
    )
    assert isinstance(answer, VersionRegistered)
    assert (answer.answer, answer.champion) == ("held", base)
    assert (registry_db.champion, registry_db.aliases.challenger) == (base, answer.version)
    assert (
        registry_db.run(lambda session: checkpoint_saved(session, checkpoint("r3", base), CONTEXT))
        == []
    ), "the run has ended"
    assert (
        registry_db.run(
            lambda session: training_rolled_back(
                session, rejection("r3", base, evaluation=2), CONTEXT
            )
        )
        == []
    )

    assert registry_db.run(
        lambda session: release(session, "support", "operator", "looked at it", NOW)
    )
    assert registry_db.champion == base, "an operator promotes the waiting challenger"
    registry_db.run(lambda session: promote_by_operator(session, "support", None, "good", NOW))
    assert registry_db.champion == answer.version


def test_rollback_count_is_per_day(registry_db: DatabaseFixture) -> None:
    rule = MonitorSettings(rollbacks_per_day=2)
    monitor(registry_db, ratings(registry_db.champion, 0.8), rule)
    for number, day in (("r1", 0), ("r2", 2)):
        worse = promoted(registry_db, number)
        monitor(registry_db, ratings(worse, -0.5), rule, NOW + timedelta(days=day))
    assert registry_db.run(lambda session: hold_of(session, "support")) is None


def test_model_on_hold_is_not_rolled_back(registry_db: DatabaseFixture) -> None:
    monitor(registry_db, ratings(registry_db.champion, 0.8))
    worse = promoted(registry_db, "r1")
    assert registry_db.run(lambda session: hold(session, "support", "operator", "an incident", NOW))
    assert not registry_db.run(lambda session: hold(session, "support", "operator", "again", NOW))
    result = monitor(registry_db, ratings(worse, -0.5))
    assert result.worse
    assert registry_db.champion == worse
    assert [
        row.action for row in registry_db.run(lambda session: history_of(session, "support", 9))
    ][:1] == ["hold"]


def test_hold_of_an_unknown_model_is_refused(registry_db: DatabaseFixture) -> None:
    with pytest.raises(UnknownVersion, match="nothing"):
        registry_db.run(lambda session: hold(session, "nothing", "operator", "why not", NOW))
    assert not registry_db.run(
        lambda session: release(session, "support", "operator", "why not", NOW)
    )
