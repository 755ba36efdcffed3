"""Conversations in the formats of chat APIs and tracing tools become plain messages, or a refusal
that names the message and the field.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ContractViolation, Unprocessable
from shared.events import FeedbackReceived, FeedbackScored, Message
from shared.messaging.chat_formats import plain_feedback
from shared.messaging.codec import decode, encode
from tests.support.scored_feedback import scored

EVENT = {
    "event_id": "e1",
    "occurred_at": "2026-01-01T00:00:00Z",
    "model": "support",
    "input": "q",
    "output": "a",
    "feedback_type": "thumbs_up",
}
USER = {"role": "user", "content": "Where is my order?"}
CHAT = [{"role": "system", "content": "Be brief."}, USER]
TURNS = (Message(role="system", content="Be brief."), Message(role="user", content=USER["content"]))


def received(**fields: Any) -> FeedbackReceived:
    return decode(json.dumps(EVENT | fields).encode(), [], FeedbackReceived).event


def refusal(**fields: Any) -> tuple[str, str]:
    with pytest.raises(ContractViolation) as caught:
        received(**fields)
    return caught.value.field, caught.value.reason


OPENTELEMETRY = [
    {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
    {"role": "user", "parts": [{"type": "text", "content": "Where is my order?"}]},
]


@pytest.mark.parametrize("stored", [CHAT, {"messages": CHAT, "model": "m"}, OPENTELEMETRY])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_conversation_stored_as_json_is_parsed(stored: Any, indent: int | None) -> None:
    """Langfuse's `{messages}` and message lists, and OpenTelemetry's `gen_ai.input.messages`."""
    event = received(input=json.dumps(stored, indent=indent))
    assert event.messages == TURNS


def test_one_message_stored_as_json_is_parsed() -> None:
    assert received(input=json.dumps(USER)).messages == TURNS[1:]


ANSWER = {"role": "assistant", "content": "It left today.", "refusal": None, "tool_calls": None}
OUTPUT_MESSAGES = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": "It left today."}],
        "finish_reason": "stop",
    }
]


@pytest.mark.parametrize("stored", [ANSWER, [ANSWER], OUTPUT_MESSAGES])
@pytest.mark.parametrize("field", ["output", "corrected_output"])
def test_an_answer_stored_as_a_message_is_its_text(stored: Any, field: str) -> None:
    for sent in (stored, json.dumps(stored)):
        assert getattr(received(**{field: sent}), field) == "It left today."


@pytest.mark.parametrize(
    "text",
    [
        '[{"role": "manager", "content": "a row of a table"}]',
        '[{"role": "user", "content": "no end"',
        '[{"role": "user"}]',
        '{"role": "user", "queue": "harbor"}',
        '{"messages": "role"}',
        '["role"]',
        "[]",
        '[{"role": "user", "content": "x"}] Is this valid JSON?',
    ],
)
def test_other_text_that_looks_like_json_stays_text(text: str) -> None:
    event = received(input=text, output=text)
    assert (event.input, event.output) == (text, text)


def test_an_answer_in_other_json_stays_text() -> None:
    for stored in ({"queue": "harbor", "priority": "p2"}, USER, [ANSWER, ANSWER]):
        text = json.dumps(stored)
        assert received(output=text).output == text


def test_text_inside_a_message_is_never_parsed() -> None:
    """A prompt or an answer that is about messages in JSON is sent inside a message."""
    text = json.dumps(CHAT)
    about = json.dumps(ANSWER)
    event = received(
        input=[{"role": "user", "content": text}], output={"role": "assistant", "content": about}
    )
    assert event.messages == (Message(role="user", content=text),)
    assert event.output == about


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Where is "}, {"type": "input_text", "text": "my order?"}]
    assert received(input=[{"role": "user", "content": parts}]).messages == TURNS[1:]
    assert received(input=[{"role": "user", "content": []}]).messages[0].content == ""


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Blue.", "reasoning_content": "A colour."},
        {"content": "Blue.", "reasoning": "A colour."},
        {
            "content": [
                {"type": "thinking", "thinking": "A colour.", "signature": "x"},
                {"type": "text", "text": "Blue."},
            ]
        },
        {
            "parts": [
                {"type": "reasoning", "content": "A colour."},
                {"type": "text", "content": "Blue."},
            ]
        },
    ],
)
def test_reasoning_beside_an_answer_becomes_a_block(message: dict[str, Any]) -> None:
    answer = {"role": "assistant", **message}
    event = received(input=[USER, answer, USER], output=answer)
    assert event.messages[1].content == event.output == "<think>\nA colour.\n</think>\n\nBlue."


def test_an_empty_reasoning_field_is_ignored() -> None:
    fields: list[Any] = [None, "", " ", []]
    for empty in fields:
        answer = {"role": "assistant", "content": "Blue.", "reasoning_content": empty}
        assert received(output=answer).output == "Blue."


def test_a_developer_message_is_a_system_message() -> None:
    sent = [{"role": "developer", "content": "Be brief."}, USER]
    for stored in (sent, json.dumps(sent)):
        assert received(input=stored).messages == TURNS


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (
            {"role": "user", "content": [{"type": "text", "text": "q"}, IMAGE]},
            "input.1.content.1",
            "only text can be trained on, found a part of type 'image_url'",
        ),
        (
            {"role": "user", "parts": [{"type": "blob", "modality": "image"}]},
            "input.1.parts.0",
            "found a part of type 'blob'",
        ),
        (
            {"role": "user", "content": [{"type": "ada@example.com", "text": "q"}]},
            "input.1.content.0",
            "found a part of type a string;",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": None}]},
            "input.1.content.0.text",
            "expected a string, found null",
        ),
        (
            {"role": "user", "content": [7]},
            "input.1.content.0",
            "expected a content part, found a number",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function"}]},
            "input.1.tool_calls",
            "tool calls cannot be trained on",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(message: Any, field: str, words: str) -> None:
    for sent in ([USER, message], json.dumps([USER, message])):
        refused_field, reason = refusal(input=sent)
        assert (refused_field, words in reason) == (field, True), reason


def test_an_answer_with_an_image_is_refused() -> None:
    field, reason = refusal(output=json.dumps({"role": "assistant", "content": [IMAGE]}))
    assert (field, "'image_url'" in reason) == ("output.content.0", True)


def test_an_answer_without_text_is_refused() -> None:
    empty = {"role": "assistant", "content": None}
    assert refusal(output=empty) == ("output", "expected a string, found null")


def test_a_comment_of_another_type_is_kept_as_json() -> None:
    """Before the field existed, producers may have sent anything under its name."""
    assert received(comment="Too long.").comment == "Too long."
    assert received(comment={"why": "Too long."}).comment == '{"why":"Too long."}'
    assert received(comment=None).comment is None


def test_scored_feedback_is_not_read_a_second_time() -> None:
    """Events of earlier versions keep their prompt, so that decisions about them stay the same."""
    event = scored("e1", input=json.dumps(CHAT))
    value, headers = encode(event, "/ratchet/feedback")
    assert decode(value, headers, FeedbackScored).event.input == json.dumps(CHAT)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "parts", "type", "text", "messages", "tool_calls"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(VALUES, VALUES)
def test_any_content_is_plain_or_refused(sent: Any, answer: Any) -> None:
    for fields in (
        {"input": sent, "output": answer},
        {"input": json.dumps(sent), "output": json.dumps(answer)},
    ):
        try:
            plain = plain_feedback(fields)
            assert plain_feedback(plain).keys() == plain.keys()
            event = received(**fields)
        except Unprocessable:
            continue
        assert all(isinstance(message.content, str) for message in event.messages)
