from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.reward import change, is_cut_off, repeats_itself, reward_of
from shared.events import FeedbackReceived
from shared.model_file import RewardPolicy

POLICY = RewardPolicy(validation=1.0, action=1.0, rules=0.5)


def feedback(feedback_type: str, output: str = "a good answer", **fields: Any) -> FeedbackReceived:
    said = {"event_id": "e", "occurred_at": "2026-01-01T00:00:00Z", "model": "support", "input": "q", "output": output}
    return FeedbackReceived.model_validate(said | {"feedback_type": feedback_type} | fields)


@pytest.mark.parametrize(
    ("feedback_type", "reward"),
    [("thumbs_up", 1.0), ("accepted", 1.0), ("thumbs_down", -1.0), ("regenerated", -0.5), ("retracted", 0.0), ("validation", 0.0)],
)
def test_what_each_action_is_worth_alone(feedback_type: str, reward: float) -> None:
    assert reward_of(feedback(feedback_type), POLICY)[0] == reward


def test_the_reward_is_the_weighted_mean_of_the_parts_that_are_there() -> None:
    """Check 0.9 → 0.8, thumbs down → -1, empty → -1: (3·0.8 - 1 - 0.5) / 4.5 = 0.9 / 4.5 = 0.2."""
    reward, parts = reward_of(feedback("thumbs_down", output=" ", validation_score=0.9), POLICY.model_copy(update={"validation": 3.0}))
    assert reward == pytest.approx(0.2)
    assert [(part.name, round(part.value, 9), part.weight) for part in parts] == [
        ("validation", 0.8, 3.0),
        ("action", -1.0, 1.0),
        ("rules", -1.0, 0.5),
    ]


def test_a_correction_counts_against_the_answer_by_how_much_had_to_change() -> None:
    """Of `a b c d` and `a b c x`, 6 of 8 words are common: -0.25."""
    assert reward_of(feedback("correction", "a b c d", corrected_output="a b c x"), POLICY)[0] == pytest.approx(-0.25)
    assert reward_of(feedback("correction", "a b", corrected_output="c d"), POLICY)[0] == -1.0
    assert reward_of(feedback("correction", "a b", corrected_output="a b"), POLICY)[0] == 0.0


def test_weights_of_zero_leave_no_reward() -> None:
    assert reward_of(feedback("thumbs_up"), RewardPolicy(validation=0, action=0, rules=0))[0] == 0.0


def test_a_sound_answer_has_no_part_for_rules() -> None:
    assert [part.name for part in reward_of(feedback("thumbs_up"), POLICY)[1]] == ["action"]


def test_answers_that_are_cut_off() -> None:
    assert is_cut_off("```python\nx = 1", None)
    assert is_cut_off("so", "length")
    assert not is_cut_off("```python\nx = 1\n```", "stop")
    assert reward_of(feedback("validation", tags={"finish_reason": "length"}), POLICY)[0] == -1.0


def test_answers_that_repeat_themselves() -> None:
    assert repeats_itself("I am sorry for that. " * 10)
    assert not repeats_itself("yes yes yes yes")
    assert not repeats_itself(" ".join(str(number) for number in range(100)))


@given(st.text(), st.text())
def test_change_is_symmetric_and_a_share(before: str, after: str) -> None:
    assert 0.0 <= change(before, after) == change(after, before) <= 1.0
    assert change(before, before) == 0.0


@given(
    st.sampled_from(["validation", "thumbs_up", "thumbs_down", "correction", "accepted", "regenerated", "retracted"]),
    st.text(),
    st.none() | st.floats(0, 1),
    st.floats(0, 5),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_rewards_and_their_parts_are_never_out_of_range(
    feedback_type: str, output: str, score: float | None, validation: float, action: float, rules: float
) -> None:
    said = feedback(feedback_type, output, validation_score=score, corrected_output="right")
    reward, parts = reward_of(said, RewardPolicy(validation=validation, action=action, rules=rules))
    assert -1.0 <= reward <= 1.0
    assert all(-1.0 <= part.value <= 1.0 for part in parts)
