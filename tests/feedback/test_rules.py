"""Rules on the answer itself."""

from services.feedback.rules import broken_rules, is_cut_off, is_repetitive
from shared.config.answer_format import format_check
from shared.config.reward_policy import RewardPolicy
from tests.feedback.feedback_events import make_feedback

ANY = format_check(RewardPolicy())
JSON = format_check(RewardPolicy(format="json"))


def test_a_valid_answer_breaks_no_rule() -> None:
    assert broken_rules(make_feedback(output="a good answer"), ANY) == ()
    assert broken_rules(make_feedback(output='{"a": 1}'), JSON) == ()


def test_broken_rules_by_answer() -> None:
    assert broken_rules(make_feedback(output=" \n"), JSON) == ("empty",)
    assert broken_rules(make_feedback(output="a good answer"), JSON) == ("format",)
    assert broken_rules(
        make_feedback(output='{"a": "b', tags={"finish_reason": "length"}), JSON
    ) == (
        "cut_off",
        "format",
    )
    assert broken_rules(make_feedback(output="I am sorry for that. " * 10), ANY) == ("repetitive",)


def test_cut_off_answers() -> None:
    assert is_cut_off("```python\nx = 1", None)
    assert is_cut_off("so", "length")
    assert not is_cut_off("```python\nx = 1\n```", "stop")


def test_repetitive_answers() -> None:
    assert is_repetitive("I am sorry for that. " * 10)
    assert not is_repetitive("yes yes yes yes")
    assert not is_repetitive(" ".join(str(number) for number in range(100)))
