"""Validation in the client agrees with that of Ratchet."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_client.event import (
    MAX_EVENT_BYTES,
    FeedbackFields,
    InvalidFeedback,
    build_record,
    parse_line,
)
from shared.errors import Unprocessable
from shared.events import FeedbackReceived
from shared.messaging.codec import decode
from shared.messaging.topics import MAX_APPLICATION_RECORD_BYTES

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FEEDBACK: FeedbackFields = {
    "model": "support",
    "input": "q",
    "output": "a",
    "feedback_type": "thumbs_up",
}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(-1, 2),
    st.text(max_size=3),
    st.just("x" * 257),
    st.just([]),
)
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "tool", "assistant", "boss"]),
        "content": st.text(max_size=3) | odd,
    }
)
fields = {
    "model": st.sampled_from(["support", "a.b-c_d", "Support", "", "-a", "a\n", "x" * 64]) | odd,
    "input": st.text(max_size=3) | st.lists(turns, max_size=2) | odd,
    "output": st.text(max_size=3) | odd,
    "feedback_type": st.sampled_from(["thumbs_up", "correction", "retracted", "liked"]) | odd,
    "validation_score": st.floats() | odd,
    "corrected_output": odd,
    "comment": st.text(max_size=3) | odd,
    "user_id": odd,
    "conversation_id": odd,
    "tags": st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2) | odd,
    "event_id": odd,
}


@given(st.fixed_dictionaries({}, optional=fields), st.booleans())
def test_the_client_and_the_contract_agree(changed: dict[str, Any], valid_otherwise: bool) -> None:
    feedback: Any = {**FEEDBACK, **changed} if valid_otherwise else changed
    try:
        record = build_record(feedback, NOW)
    except InvalidFeedback:
        loose = {"event_id": "e", "occurred_at": NOW} | {
            name: value for name, value in feedback.items() if value is not None
        }
        with pytest.raises(ValueError, match="validation error"):
            FeedbackReceived.model_validate(loose, strict=True)
        return
    event = decode(record.value, (), FeedbackReceived).event
    assert event.event_id == record.event_id
    assert b"\n" not in record.value
    assert parse_line(record.value) == record


def test_feedback_arrives_unchanged() -> None:
    conversation: Any = (
        {"role": "system", "content": "Sort."},
        {"role": "user", "content": "Größe?\n\x00"},
    )
    more: FeedbackFields = {
        "input": conversation,
        "feedback_type": "correction",
        "corrected_output": "→",
        "comment": "Zu lang.",
        "tags": {"channel": "web"},
    }
    at = datetime(2026, 1, 1, 13, tzinfo=UTC) - timedelta(minutes=1)
    record = build_record(
        {
            **FEEDBACK,
            **more,
            "user_id": "ada",
            "conversation_id": "c1",
            "occurred_at": at,
            "validation_score": 0.5,
        },
        NOW,
    )
    event = decode(record.value, (), FeedbackReceived).event
    assert [message.model_dump() for message in event.messages] == list(conversation)
    assert (event.corrected_output, event.tags, event.occurred_at, event.validation_score) == (
        "→",
        {"channel": "web"},
        at,
        0.5,
    )
    assert event.comment == "Zu lang."
    assert record.key == b"c1"
    assert build_record({**FEEDBACK, "user_id": "ada"}, NOW).key == b"ada"
    assert build_record({**FEEDBACK, "event_id": "e"}, NOW).key == b"e"
    assert decode(build_record(FEEDBACK, NOW).value, (), FeedbackReceived).event.occurred_at == NOW


def test_messages_of_chat_apis_become_plain_messages() -> None:
    sent: Any = [
        {"role": "developer", "content": "Sort."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    record = build_record({**FEEDBACK, "input": sent}, NOW)
    assert json.loads(record.value)["input"] == [
        {"role": "system", "content": "Sort."},
        {"role": "user", "content": "ab"},
    ]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"input": [{"role": "user", "content": [{"type": "image_url"}]}]}, "input.0.content.0"),
        ({"model": "Support"}, "model"),
        ({"output": None}, "output"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"feedback_type": "correction"}, "corrected_output"),
        ({"validation_score": 1.5}, "validation_score"),
        ({"occurred_at": datetime(2026, 1, 1)}, "occurred_at"),  # noqa: DTZ001 (that is the mistake)
        ({"feedback": "thumbs_up"}, "feedback"),
        ({"output": "\ud800"}, "event"),
        ({"output": "x" * MAX_EVENT_BYTES}, "event"),
    ],
)
def test_the_invalid_argument_is_named(changed: dict[str, Any], field: str) -> None:
    feedback: Any = FEEDBACK | changed
    with pytest.raises(InvalidFeedback) as refused:
        build_record(feedback, NOW)
    assert refused.value.field == field


def test_the_largest_event_fits_in_a_record() -> None:
    assert MAX_EVENT_BYTES + 4 * 256 + 1000 < MAX_APPLICATION_RECORD_BYTES


def test_an_invalid_line_is_none() -> None:
    for line in (
        b"",
        b"[]",
        b"{}",
        b'{"event_id": 1}',
        b"\xff",
        b'{"event_id": "e", "user_id": 3}',
    ):
        assert parse_line(line) is None
    with pytest.raises(Unprocessable):
        decode(b"[]", (), FeedbackReceived)
