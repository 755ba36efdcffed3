"""Scoring: from a record to a scored event, or an error with its field."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.feedback.scoring import Policies, score
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import ContractViolation, Undecodable, UnknownModel
from shared.messaging.bus import Record
from shared.reward import mean_reward

FILE = ModelFile.model_validate(
    {"model": "support", "base": {"training": "base", "serving": "base.gguf"}, "shards": 4}
)
POLICIES = Policies(Models({"support": FILE}, Path()))
EVENT: dict[str, Any] = {
    "event_id": "e",
    "occurred_at": "2026-01-01T00:00:00Z",
    "model": "support",
    "input": [{"role": "user", "content": "q"}],
    "output": "a",
    "feedback_type": "thumbs_up",
    "user_id": "ann",
}


def record(headers: tuple[tuple[str, bytes], ...] = (), **changed: Any) -> Record:
    return Record("feedback.received", 2, 17, None, json.dumps(EVENT | changed).encode(), headers)


def test_a_scored_event_has_the_feedback_and_its_scoring() -> None:
    scored = score(record(), POLICIES)
    event = scored.event
    assert event.model_dump(mode="json", include=set(EVENT)) == EVENT
    assert (event.reward, event.policy.name, event.model_digest) == (1.0, "default", FILE.digest)
    assert (event.received.topic, event.received.partition, event.received.offset) == (
        "feedback.received",
        2,
        17,
    )
    assert scored.key == f"support#{event.shard}"


def test_all_feedback_of_one_user_goes_to_one_shard() -> None:
    assert (
        len(
            {
                score(record(event_id=str(number), output=str(number)), POLICIES).event.shard
                for number in range(20)
            }
        )
        == 1
    )
    assert (
        len(
            {
                score(record(event_id=str(number), user_id=str(number)), POLICIES).event.shard
                for number in range(50)
            }
        )
        == 4
    )


def test_feedback_for_an_undeclared_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="no model file declares 'other'"):
        score(record(model="other"), POLICIES)


def test_an_invalid_event_is_refused_with_the_field() -> None:
    with pytest.raises(Undecodable):
        score(Record("feedback.received", 0, 0, None, b"{", ()), POLICIES)
    with pytest.raises(ContractViolation) as refused:
        score(record(validation_score=2), POLICIES)
    assert refused.value.field == "validation_score"


def test_a_too_long_source_is_refused() -> None:
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_type", b"t"),
        ("ce_id", b"e"),
        ("ce_source", b"s" * 300),
    )
    with pytest.raises(ContractViolation) as refused:
        score(record(headers), POLICIES)
    assert refused.value.field == "source"
    assert (
        score(record((*headers[:3], ("ce_source", b"s" * 254))), POLICIES).event.identity
        == "s" * 254 + "|e"
    )


def with_reward(**reward: Any) -> Policies:
    return Policies(
        Models(
            {"support": ModelFile.model_validate(FILE.model_dump() | {"reward": reward})}, Path()
        )
    )


def test_the_reward_is_the_weighted_mean_of_its_parts() -> None:
    policies = with_reward(name="mine", version=7, validation=3.0, format="json")
    event = score(
        record(validation_score=0.9, feedback_type="thumbs_down", output="no JSON"), policies
    ).event
    assert [(part.name, part.weight, part.reason) for part in event.parts] == [
        ("validation", 3.0, None),
        ("action", 1.0, None),
        ("rules", 0.5, "format"),
    ]
    assert event.reward == mean_reward(event.parts) == pytest.approx((3 * 0.8 - 1 - 0.5) / 4.5)
    assert (event.policy.name, event.policy.version) == ("mine", 7)


def test_a_correction_in_a_wrong_format_is_refused() -> None:
    policies = with_reward(name="mine", version=7, format="json")
    with pytest.raises(ContractViolation) as refused:
        score(
            record(feedback_type="correction", corrected_output="It belongs to harbor."), policies
        )
    assert refused.value.field == "corrected_output"
    assert (
        refused.value.reason
        == "is not JSON, and the model would learn it (reward policy 'mine', version 7)"
    )
    assert (
        score(
            record(feedback_type="correction", corrected_output="{}"), policies
        ).event.corrected_output
        == "{}"
    )
    # Other feedback types ignore the field, so its format does not matter.
    assert score(
        record(feedback_type="thumbs_up", corrected_output="so what"), policies
    ).event.reward == pytest.approx(1 / 3)


def test_the_format_is_checked_before_redaction() -> None:
    """The address matches the pattern, the placeholder does not."""
    policies = with_reward(pattern="^[a-z.]+@[a-z.]+$")
    event = score(
        record(
            feedback_type="correction", output="ann@example.com", corrected_output="bob@example.com"
        ),
        policies,
    ).event
    assert (event.output, event.corrected_output) == ("<EMAIL_1>", "<EMAIL_2>")
    assert [part.name for part in event.parts] == ["correction"]


def test_a_correction_is_measured_after_redaction() -> None:
    """An address in another letter case and a number in other groups are the same text after
    redaction, so there is nothing to learn.
    """
    texts: dict[str, Any] = {
        "output": "Write to Ann@Example.com or +49 30 1234567",
        "corrected_output": "Write to ann@example.com or 030 1234567",
    }
    event = score(record(feedback_type="correction", **texts), POLICIES).event
    assert (event.output, event.reward) == (event.corrected_output, 0.0)
    texts["corrected_output"] = "Write to bob@example.com or 030 1234567"
    assert -0.2 < score(record(feedback_type="correction", **texts), POLICIES).event.reward < 0


def test_redactions_are_counted_by_kind() -> None:
    scored = score(
        record(user_id="ann@example.com", output="203.0.113.9 and 203.0.113.9"), POLICIES
    )
    assert scored.redactions == {"email": 1, "ip": 2}
    assert scored.event.shard == FILE.shard_of(scored.event.user_id, None, "")


THOUGHT = "<think>\nIs it {?\n</think>\n\n"


def policies(**settings: Any) -> Policies:
    file = ModelFile.model_validate({**FILE.model_dump(), **settings})
    return Policies(Models({"support": file}, Path()))


def test_reasoning_is_no_part_of_the_answer() -> None:
    """The rules and the reward are those of the answer: JSON, and half of its words corrected."""
    sent = record(
        input=[
            {"role": "user", "content": THOUGHT},
            {"role": "assistant", "content": THOUGHT + "b"},
            {"role": "user", "content": "q"},
        ],
        output=THOUGHT + '{"a": 1}',
        corrected_output=THOUGHT + '{"a": 2}',
        feedback_type="correction",
    )
    event = score(sent, policies(reward={"format": "json"})).event
    assert [message.content for message in event.messages] == [THOUGHT, "b", "q"]
    assert (event.output, event.corrected_output) == ('{"a": 1}', '{"a": 2}')
    assert [part.name for part in event.parts] == ["correction"]


def test_reasoning_is_kept_where_the_model_file_says_so() -> None:
    sent = record(output=THOUGHT + "a")
    assert score(sent, policies(thinking="keep")).event.output == THOUGHT + "a"
    assert score(sent, policies()).event.output == "a"


def test_an_answer_of_reasoning_alone_is_empty() -> None:
    event = score(record(output="<think>It never ends"), POLICIES).event
    assert (event.output, event.parts[-1].reason) == ("", "empty")


def test_a_correction_of_reasoning_alone_is_refused() -> None:
    sent = record(feedback_type="correction", corrected_output=THOUGHT)
    with pytest.raises(ContractViolation, match="holds reasoning and no answer") as caught:
        score(sent, POLICIES)
    assert caught.value.field == "corrected_output"


@pytest.mark.parametrize("action", ["thumbs_up", "thumbs_down", "accepted", "regenerated"])
def test_a_corrected_answer_makes_a_correction_of_an_action(action: str) -> None:
    event = score(
        record(feedback_type=action, output="a b", corrected_output="a c"), POLICIES
    ).event
    assert event.feedback_type == "correction"
    assert [(part.name, part.value) for part in event.parts] == [("correction", -0.5)]


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"corrected_output": " a "}, {}),
        ({"corrected_output": THOUGHT}, {}),
        ({"output": "{}", "corrected_output": "shorter, please"}, {"reward": {"format": "json"}}),
        ({"feedback_type": "validation", "validation_score": 0.5, "corrected_output": "b"}, {}),
        ({"feedback_type": "retracted", "corrected_output": "b"}, {}),
    ],
)
def test_no_other_text_makes_a_correction(fields: dict[str, Any], settings: dict[str, Any]) -> None:
    event = score(record(**fields), policies(**settings)).event
    assert event.feedback_type == fields.get("feedback_type", "thumbs_up")


def test_a_comment_is_kept_and_redacted() -> None:
    sent = record(
        output="Ask ann@example.com.", comment="ann@example.com has left; bob@example.org?"
    )
    scored = score(sent, POLICIES)
    assert scored.event.comment == "<EMAIL_1> has left; <EMAIL_2>?"
    assert (scored.event.output, scored.redactions) == ("Ask <EMAIL_1>.", {"email": 3})
    assert score(record(comment="Too long."), POLICIES).event.comment == "Too long."
    assert score(record(), POLICIES).event.comment is None


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("input", {"input": "x" * 101}),
        ("input", {"input": [{"role": "user", "content": "x" * 60}] * 2}),
        ("output", {"output": "x" * 101}),
        (
            "corrected_output",
            {"feedback_type": "correction", "corrected_output": "x" * 101},
        ),
    ],
)
def test_a_text_longer_than_the_model_allows_is_refused(
    field: str, changed: dict[str, Any]
) -> None:
    curation = FILE.curation.model_copy(update={"longest_text": 100})
    file = FILE.model_copy(update={"curation": curation})
    limited = Policies(Models({"support": file}, Path()))
    with pytest.raises(ContractViolation, match="send at most 100") as refused:
        score(record(**changed), limited)
    assert refused.value.field == field
    assert score(record(**changed), POLICIES).event.event_id == "e"
    assert score(record(input="x" * 100, output="y" * 100), limited).event.output == "y" * 100


def test_new_settings_do_not_change_the_digest_of_a_model() -> None:
    written = FILE.curation.model_dump(mode="json")
    assert written.keys().isdisjoint({"longest_text", "waiting_bytes_per_user"})
