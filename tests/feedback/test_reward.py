"""Parts of a reward and their mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.reward import reward_parts, word_distance
from services.feedback.rules import Rule
from shared.config.reward_policy import ActionRewards, RewardPolicy
from shared.reward import mean_reward
from tests.feedback.feedback_events import make_feedback

POLICY = RewardPolicy(validation=1.0, action=1.0, rules=0.5)
TYPES = [
    "validation",
    "thumbs_up",
    "thumbs_down",
    "correction",
    "accepted",
    "regenerated",
    "retracted",
]


@pytest.mark.parametrize(
    ("feedback_type", "part", "reward"),
    [
        ("thumbs_up", "action", 1.0),
        ("accepted", "action", 1.0),
        ("thumbs_down", "action", -1.0),
        ("regenerated", "action", -0.5),
        ("correction", "correction", -1.0),
        ("retracted", None, 0.0),
        ("validation", None, 0.0),
    ],
)
def test_reward_of_each_feedback_type(feedback_type: str, part: str | None, reward: float) -> None:
    parts = reward_parts(make_feedback(feedback_type, "a b", corrected_output="c d"), (), POLICY)
    assert [item.name for item in parts] == ([part] if part else [])
    assert mean_reward(parts) == reward


def test_every_part_has_its_value_and_weight() -> None:
    policy = RewardPolicy(validation=3.0, action=1.0, correction=2.0, rules=0.5)
    feedback = make_feedback(
        "correction", "a b c d", corrected_output="a b c x", validation_score=0.9
    )
    parts = reward_parts(feedback, ("cut_off", "format"), policy)
    assert [(part.name, round(part.value, 9), part.weight, part.reason) for part in parts] == [
        ("validation", 0.8, 3.0, None),
        ("correction", -0.25, 2.0, None),
        ("rules", -1.0, 0.5, "cut_off, format"),
    ]


def test_a_correction_counts_by_the_share_of_changed_words() -> None:
    """`a b c d` and `a b c x` have 6 of 8 words in common: a quarter changed."""
    assert word_distance("a b c d", "a b c x") == 0.25
    assert word_distance("a b", "c d") == 1.0
    assert word_distance("a b", "a b") == 0.0


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [
        ("我们的商店每天早上九点开门", "我们的商店每天早上八点开门", 0.1),
        ("店は毎朝九時に開きます", "店は毎朝八時に開きます", 0.1),
        ("ร้านเปิดเก้าโมง", "ร้านเปิดแปดโมง", 0.3),
        ("दुकान नौ बजे खुलती है", "दुकान दस बजे खुलती है", 0.2),
        ("The shop opens at nine", "The shop opens at eight", 0.2),
    ],
)
def test_one_change_counts_little_in_every_script(before: str, after: str, most: float) -> None:
    assert 0.0 < word_distance(before, after) <= most


def test_a_policy_sets_action_values() -> None:
    policy = RewardPolicy(actions=ActionRewards(regenerated=0.0, thumbs_up=0.25))
    assert mean_reward(reward_parts(make_feedback("regenerated"), (), policy)) == 0.0
    assert mean_reward(reward_parts(make_feedback("thumbs_up"), (), policy)) == 0.25


@given(st.text(), st.text())
def test_word_distance_is_symmetric_and_a_share(before: str, after: str) -> None:
    assert 0.0 <= word_distance(before, after) == word_distance(after, before) <= 1.0
    assert word_distance(before, before) == 0.0


@given(
    st.sampled_from(TYPES),
    st.text(),
    st.none() | st.floats(0, 1),
    st.lists(st.floats(0, 5), min_size=4, max_size=4),
    st.lists(st.sampled_from(["empty", "cut_off", "repetitive", "format"]), unique=True),
)
def test_parts_have_unique_names_and_are_in_range(
    feedback_type: str, output: str, score: float | None, weights: list[float], broken: list[Rule]
) -> None:
    feedback = make_feedback(
        feedback_type, output, validation_score=score, corrected_output="right"
    )
    policy = RewardPolicy(
        validation=weights[0], action=weights[1], correction=weights[2], rules=weights[3]
    )
    parts = reward_parts(feedback, broken, policy)
    assert len({part.name for part in parts}) == len(parts)
    assert all(-1.0 <= part.value <= 1.0 for part in parts)
    assert -1.0 <= mean_reward(parts) <= 1.0
