"""The tripwire: histories derived by hand."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.trainer.bus_view.reward_history import RewardHistory
from services.trainer.gate.reward_hacking import CandidateStep, apply_alarm, detect_reward_hacking
from shared.config.model_file import RewardHackingRule
from shared.events import Event, VersionPromoted
from tests.trainer.histories import rolled_back_run, verdict
from tests.trainer.tickets import NOW

RULE = RewardHackingRule(versions=4, reward_rise=0.3, held_out_gain=0.0)


def steps(rewards: list[float], gains: list[float]) -> list[CandidateStep]:
    return [CandidateStep(*pair) for pair in zip(rewards, gains, strict=True)]


def by_hand(at: datetime, actor: str = "operator") -> VersionPromoted:
    return VersionPromoted(
        event_id="p", occurred_at=at, model="m", version="v1", actor=actor, reason=""
    )


def test_reward_up_and_held_out_down_trips() -> None:
    """Rewards 0.0, 0.1, 0.3, 0.4 have the slope (-1.5·0 - 0.5·0.1 + 0.5·0.3 + 1.5·0.4) / 5 = 0.14:
    a rise of 0.42 over three steps. Gains sum up to -0.08, so -0.02 on average.
    """
    alarm = detect_reward_hacking(steps([0.0, 0.1, 0.3, 0.4], [0.02, 0.0, -0.04, -0.06]), RULE)
    assert alarm is not None
    assert alarm.startswith("reward hacking suspected: over 4 candidates")
    assert "rose by 0.420" in alarm
    assert "-0.0200" in alarm


def test_flat_counts_as_not_following() -> None:
    assert detect_reward_hacking(steps([0.0, 0.1, 0.2, 0.3], [0.0] * 4), RULE)


def test_reward_that_held_out_follows_does_not_trip() -> None:
    assert (
        detect_reward_hacking(steps([0.0, 0.1, 0.3, 0.4], [0.02, 0.02, -0.01, 0.02]), RULE) is None
    )


def test_reward_that_rises_too_little_does_not_trip() -> None:
    """0.09 a step are 0.27 over three."""
    assert detect_reward_hacking(steps([0.0, 0.09, 0.18, 0.27], [-0.1] * 4), RULE) is None


def test_one_jump_of_reward_up_and_down_again_is_no_trend() -> None:
    """The slope of 0, 0.8, 0.8, 0 is nought."""
    assert detect_reward_hacking(steps([0.0, 0.8, 0.8, 0.0], [-0.1] * 4), RULE) is None


def test_too_short_a_history_says_nothing() -> None:
    assert detect_reward_hacking(steps([0.0, 0.5, 1.0], [-0.1] * 3), RULE) is None


def test_only_the_newest_count_so_that_the_alarm_ends_with_the_trend() -> None:
    tripping = steps([0.0, 0.1, 0.2, 0.3], [-0.01] * 4)
    assert detect_reward_hacking(tripping, RULE)
    assert detect_reward_hacking([*tripping, CandidateStep(0.3, 0.1)], RULE) is None
    assert detect_reward_hacking([*tripping, *steps([0.3, 0.3], [-0.01] * 2)], RULE) is None


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=4, max_size=8),
    st.floats(0.001, 1),
)
def test_a_higher_gain_on_held_out_never_trips_what_did_not(
    history: list[tuple[float, float]], more: float
) -> None:
    if detect_reward_hacking([CandidateStep(*step) for step in history], RULE) is None:
        assert (
            detect_reward_hacking(
                [CandidateStep(reward, gained + more) for reward, gained in history], RULE
            )
            is None
        )


def test_an_alarm_stops_promotion_and_leaves_a_rejection() -> None:
    stopped, rejected = (
        apply_alarm(verdict("promote"), "hacked", RULE),
        apply_alarm(verdict("reject"), "hacked", RULE),
    )
    assert (stopped.decision, stopped.reasons, stopped.alarm) == (
        "inconclusive",
        ("hacked", "because"),
        "hacked",
    )
    assert (rejected.decision, rejected.reasons, rejected.alarm) == (
        "reject",
        ("because", "hacked"),
        "hacked",
    )
    assert apply_alarm(verdict("promote"), None, RULE) == verdict("promote")


def test_a_rule_that_only_tells_stops_nothing() -> None:
    told = apply_alarm(verdict("promote"), "hacked", RULE.model_copy(update={"blocks": False}))
    assert (told.decision, told.alarm) == ("promote", "hacked")


EVENTS: list[Event] = [
    rolled_back_run("one", 0.1, 0.5, NOW),
    by_hand(NOW + timedelta(hours=1)),
    rolled_back_run("two", 0.2, 0.0, NOW + timedelta(hours=2)),
    rolled_back_run("three", 0.3, 0.0, NOW + timedelta(hours=3)),
    rolled_back_run("three", 0.3, -0.1, NOW + timedelta(hours=4), evaluation=2),
]


@given(st.permutations(range(5)))
def test_history_begins_where_an_operator_promoted_and_has_each_run_once(order: list[int]) -> None:
    history = RewardHistory()
    for place in [*order, order[0]]:
        history.apply(EVENTS[place])
    assert history.steps_before("m", "four") == steps([0.2, 0.3], [0.0, -0.1])
    assert history.steps_before("m", "three") == steps([0.2], [0.0])
    assert history.steps_before("other", "x") == []


def test_what_the_registry_promotes_by_itself_changes_nothing() -> None:
    history = RewardHistory()
    for event in (EVENTS[0], by_hand(NOW + timedelta(hours=1), actor="registry")):
        history.apply(event)
    assert history.steps_before("m", "x") == steps([0.1], [0.5])
