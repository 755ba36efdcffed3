"""Reward-hacking alarm: histories derived by hand."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.trainer.bus_view.reward_history import RewardHistory
from services.trainer.gate.reward_hacking import CandidateStep, apply_alarm, detect_reward_hacking
from shared.config.gate import RewardHackingRule
from shared.events import Event, VersionPromoted
from tests.support.tickets import NOW
from tests.trainer.histories import rolled_back_run, verdict

RULE = RewardHackingRule(versions=4, reward_rise=0.3, held_out_gain=0.0)


def steps(rewards: list[float], gains: list[float]) -> list[CandidateStep]:
    return [CandidateStep(*pair) for pair in zip(rewards, gains, strict=True)]


def promotion(at: datetime, actor: str = "operator") -> VersionPromoted:
    return VersionPromoted(
        event_id="p", occurred_at=at, model="m", version="v1", actor=actor, reason=""
    )


def test_rising_reward_with_falling_held_out_raises_alarm() -> None:
    """Rewards 0.0, 0.1, 0.3, 0.4 have the slope (-1.5·0 - 0.5·0.1 + 0.5·0.3 + 1.5·0.4) / 5 = 0.14:
    a rise of 0.42 over three steps. Gains add up to -0.08, so -0.02 on average.
    """
    alarm = detect_reward_hacking(steps([0.0, 0.1, 0.3, 0.4], [0.02, 0.0, -0.04, -0.06]), RULE)
    assert alarm is not None
    assert alarm.startswith("reward hacking suspected: over 4 candidates")
    assert "rose by 0.420" in alarm
    assert "-0.0200" in alarm


def test_rising_reward_with_flat_held_out_raises_alarm() -> None:
    assert detect_reward_hacking(steps([0.0, 0.1, 0.2, 0.3], [0.0] * 4), RULE)


def test_no_alarm_if_held_out_rises_too() -> None:
    assert (
        detect_reward_hacking(steps([0.0, 0.1, 0.3, 0.4], [0.02, 0.02, -0.01, 0.02]), RULE) is None
    )


def test_no_alarm_below_the_reward_rise() -> None:
    """0.09 per step is a rise of 0.27 over three steps."""
    assert detect_reward_hacking(steps([0.0, 0.09, 0.18, 0.27], [-0.1] * 4), RULE) is None


def test_a_single_jump_is_no_trend() -> None:
    """The slope of 0, 0.8, 0.8, 0 is zero."""
    assert detect_reward_hacking(steps([0.0, 0.8, 0.8, 0.0], [-0.1] * 4), RULE) is None


def test_short_history_raises_no_alarm() -> None:
    assert detect_reward_hacking(steps([0.0, 0.5, 1.0], [-0.1] * 3), RULE) is None


def test_alarm_ends_with_the_trend() -> None:
    suspicious = steps([0.0, 0.1, 0.2, 0.3], [-0.01] * 4)
    assert detect_reward_hacking(suspicious, RULE)
    assert detect_reward_hacking([*suspicious, CandidateStep(0.3, 0.1)], RULE) is None
    assert detect_reward_hacking([*suspicious, *steps([0.3, 0.3], [-0.01] * 2)], RULE) is None


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=4, max_size=8),
    st.floats(0.001, 1),
)
def test_higher_held_out_gain_never_raises_an_alarm(
    history: list[tuple[float, float]], more: float
) -> None:
    if detect_reward_hacking([CandidateStep(*step) for step in history], RULE) is None:
        assert (
            detect_reward_hacking(
                [CandidateStep(reward, gain + more) for reward, gain in history], RULE
            )
            is None
        )


def test_alarm_blocks_promotion_and_keeps_rejection() -> None:
    blocked, rejected = (
        apply_alarm(verdict("promote"), "hacked", RULE),
        apply_alarm(verdict("reject"), "hacked", RULE),
    )
    assert (blocked.decision, blocked.reasons, blocked.alarm) == (
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


def test_report_only_rule_blocks_nothing() -> None:
    reported = apply_alarm(verdict("promote"), "hacked", RULE.model_copy(update={"blocks": False}))
    assert (reported.decision, reported.alarm) == ("promote", "hacked")


EVENTS: list[Event] = [
    rolled_back_run("one", 0.1, 0.5, NOW),
    promotion(NOW + timedelta(hours=1)),
    rolled_back_run("two", 0.2, 0.0, NOW + timedelta(hours=2)),
    rolled_back_run("three", 0.3, 0.0, NOW + timedelta(hours=3)),
    rolled_back_run("three", 0.3, -0.1, NOW + timedelta(hours=4), evaluation=2),
]


@given(st.permutations(range(5)))
def test_history_restarts_at_an_operators_promotion(order: list[int]) -> None:
    history = RewardHistory()
    for index in [*order, order[0]]:
        history.apply(EVENTS[index])
    assert history.steps_before("m", "four") == steps([0.2, 0.3], [0.0, -0.1])
    assert history.steps_before("m", "three") == steps([0.2], [0.0])
    assert history.steps_before("other", "x") == []


def test_automatic_promotion_keeps_the_history() -> None:
    history = RewardHistory()
    for event in (EVENTS[0], promotion(NOW + timedelta(hours=1), actor="registry")):
        history.apply(event)
    assert history.steps_before("m", "x") == steps([0.1], [0.5])
