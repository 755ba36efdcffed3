from typing import Any

import pytest

from services.dataset.ledger.curation import RedactionCheck, curate, is_held_out, quality_of
from shared.config.curation import CurationSettings
from shared.config.model_file import ModelFile
from shared.events import Message, RewardPart
from shared.identity import identity, prompt_identity
from tests.support.scored_feedback import scored, words

NOTHING_HELD_OUT = CurationSettings(held_out_share=0.0)


@pytest.mark.parametrize(
    ("feedback_type", "reward", "decision", "reason"),
    [
        ("correction", -0.9, "training", "correction"),
        ("thumbs_up", 1.0, "training", "approved"),
        ("accepted", 0.2, "training", "approved"),
        ("validation", 0.19, "dropped", "low_quality"),
        ("validation", -0.1, "negative", "low_reward"),
        ("thumbs_down", 0.0, "negative", "low_reward"),
        ("regenerated", 0.9, "dropped", "low_quality"),
        ("retracted", 1.0, "dropped", "retracted"),
    ],
)
def test_decision_by_feedback_type_and_reward(
    feedback_type: str, reward: float, decision: str, reason: str
) -> None:
    curated = curate(scored("e", feedback_type, reward), NOTHING_HELD_OUT, frozenset())
    assert (curated.decision, curated.reason) == (decision, reason)
    assert (curated.example is None) == (decision == "dropped")


def test_correction_is_trained_on_and_rejects_the_original() -> None:
    example = curate(
        scored("e", "correction", output="wrong", corrected_output="right"),
        NOTHING_HELD_OUT,
        frozenset(),
    ).example
    assert example is not None
    assert (example.answer, example.rejected, example.quality) == ("right", "wrong", 1.0)


@pytest.mark.parametrize("output", ["right", " right\n", "", "  "])
def test_correction_without_a_change_is_no_preference(
    output: str,
) -> None:
    example = curate(
        scored("e", "correction", output=output, corrected_output="right"),
        NOTHING_HELD_OUT,
        frozenset(),
    ).example
    assert example is not None
    assert example.rejected is None


@pytest.mark.parametrize("feedback_type", ["thumbs_up", "thumbs_down"])
def test_blank_answer_is_dropped(feedback_type: str) -> None:
    assert (
        curate(scored("e", feedback_type, output=" \n"), NOTHING_HELD_OUT, frozenset()).reason
        == "empty"
    )


def test_quality_is_in_the_unit_interval() -> None:
    assert [quality_of(scored("e", "thumbs_up", reward)) for reward in (-1.0, 0.0, 1.0)] == [
        0.0,
        0.5,
        1.0,
    ]


def test_golden_prompts_are_never_trained_on() -> None:
    golden = frozenset({prompt_identity([Message(role="user", content="Where is  my ORDER?")])})
    for feedback_type in ("correction", "thumbs_up", "thumbs_down"):
        assert (
            curate(
                scored("e", feedback_type, input="where is my order?"), NOTHING_HELD_OUT, golden
            ).reason
            == "contaminated"
        )


def test_a_prompt_is_never_on_both_sides() -> None:
    policy = CurationSettings(held_out_share=0.5)
    sides = {}
    for number in range(50):
        prompt = words(f"p{number}")
        sides[prompt] = {
            curate(
                scored(f"{number}-{kind}", kind, reward, input=prompt), policy, frozenset()
            ).decision
            for kind, reward in (("correction", 0.0), ("thumbs_up", 1.0), ("thumbs_down", -1.0))
        }
    assert set(map(frozenset, sides.values())) == {
        frozenset({"training", "negative"}),
        frozenset({"held_out", "dropped"}),
    }


def test_raising_the_held_out_share_only_adds_prompts() -> None:
    prompts = [identity(number) for number in range(2000)]
    small = {prompt for prompt in prompts if is_held_out(prompt, 0.1)}
    large = {prompt for prompt in prompts if is_held_out(prompt, 0.2)}
    assert 150 < len(small) < 250
    assert small < large


def test_a_comment_stays_with_its_example() -> None:
    for feedback_type, reward in (("thumbs_up", 1.0), ("thumbs_down", -1.0)):
        event = scored("e", feedback_type, reward, comment="Too long.")
        example = curate(event, CurationSettings(held_out_share=0.0), frozenset()).example
        assert example is not None
        assert example.comment == "Too long."


QUEUES = {
    "type": "object",
    "properties": {"order": {"type": "integer"}, "mail": {"type": "string"}},
}


def model_with(**fields: Any) -> ModelFile:
    return ModelFile.model_validate(
        {
            "model": "support",
            "base": {"training": "base", "serving": "base.gguf"},
            "curation": {"held_out_share": 0.0},
        }
        | fields
    )


def reason_of(file: ModelFile, feedback_type: str, **fields: Any) -> str:
    event = scored("e", feedback_type, **fields)
    return curate(event, file.curation, frozenset(), RedactionCheck(file)).reason


@pytest.mark.parametrize(
    ("feedback_type", "field", "kept"),
    [("thumbs_up", "output", "approved"), ("correction", "corrected_output", "correction")],
)
def test_answer_that_redaction_broke_is_dropped(feedback_type: str, field: str, kept: str) -> None:
    file = model_with(reward={"format": "json", "json_schema": QUEUES})
    broken, intact = '{"order": "<PHONE_1>"}', '{"mail": "<EMAIL_1>"}'
    prompt = "<PHONE_1> and <EMAIL_1>"
    assert reason_of(file, feedback_type, input=prompt, **{field: broken}) == "format_redacted"
    assert reason_of(file, feedback_type, input=prompt, **{field: intact}) == kept


def test_answer_that_never_had_the_format_is_rated_as_such() -> None:
    file = model_with(reward={"format": "json"})
    rules = RewardPart(name="rules", value=-1.0, weight=0.5, reason="format")
    assert reason_of(file, "thumbs_up", output="ask <EMAIL_1>", parts=(rules,)) == "approved"


@pytest.mark.parametrize("feedback_type", ["thumbs_up", "correction"])
def test_placeholder_that_the_prompt_lacks_is_not_trained(feedback_type: str) -> None:
    field = "corrected_output" if feedback_type == "correction" else "output"
    answer = {field: "Write to <EMAIL_2>."}
    both, other = "<EMAIL_1> or <EMAIL_2>", "<EMAIL_1> or <PHONE_2>"
    allowing = model_with(redaction={"train_new_placeholders": True})
    for prompt, file, expected in (
        (both, model_with(), None),
        (other, model_with(), "new_placeholder"),
        (other, allowing, None),
    ):
        reason = reason_of(file, feedback_type, input=prompt, **answer)
        assert (reason == "new_placeholder") is (expected is not None)


def test_negative_may_have_a_new_placeholder() -> None:
    assert reason_of(model_with(), "thumbs_down", output="Write to <EMAIL_2>.") == "low_reward"
