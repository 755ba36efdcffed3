"""Events are decoded from every accepted form; errors name the reason for other records."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ContractViolation, TooLarge, Undecodable, Unprocessable
from shared.events import (
    BatchReady,
    CheckpointSaved,
    FeedbackReceived,
    TrainingRolledBack,
    UserForgotten,
)
from shared.messaging.codec import MAX_EVENT_BYTES, decode, encode, try_decode_data

WHEN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)

feedback = st.builds(
    FeedbackReceived,
    event_id=st.text(min_size=1, max_size=40),
    occurred_at=st.datetimes(timezones=st.just(UTC)),
    model=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    input=st.text(min_size=1),
    output=st.text(),
    feedback_type=st.just("correction"),
    corrected_output=st.text(min_size=1),
    validation_score=st.none() | st.floats(0, 1),
    user_id=st.none() | st.text(min_size=1, max_size=40),
    tags=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)


def example(**fields: object) -> FeedbackReceived:
    values = {
        "event_id": "e1",
        "occurred_at": WHEN,
        "model": "support",
        "input": "hi",
        "output": "hello",
        "feedback_type": "thumbs_up",
    }
    return FeedbackReceived.model_validate(values | fields)


@given(feedback)
def test_binary_mode_round_trip(event: FeedbackReceived) -> None:
    value, headers = encode(event, "/application")
    decoded = decode(value, headers, FeedbackReceived)
    assert decoded.event == event
    assert decoded.source == "/application"


@given(feedback)
def test_structured_mode_and_bare_json_decode_alike(event: FeedbackReceived) -> None:
    data = event.model_dump(mode="json", exclude_none=True)
    envelope = {
        "specversion": "1.0",
        "type": "com.example.feedback",
        "source": "/application",
        "id": "1",
        "data": data,
    }
    structured = decode(
        json.dumps(envelope).encode(),
        [("content-type", b"application/cloudevents+json; charset=utf-8")],
        FeedbackReceived,
    )
    bare = decode(json.dumps(data).encode(), [], FeedbackReceived)
    assert structured.event == bare.event == event
    assert (structured.source, bare.source) == ("/application", "")


def test_missing_id_and_time_come_from_the_envelope() -> None:
    data = example().model_dump(mode="json", exclude_none=True, exclude={"event_id", "occurred_at"})
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"x"),
        ("ce_source", b"/a"),
        ("ce_id", b"e1"),
        ("ce_time", b"2026-05-04T03:02:01Z"),
    ]
    assert decode(json.dumps(data).encode(), headers, FeedbackReceived).event == example()


def test_applications_may_send_unknown_fields() -> None:
    data = example().model_dump(mode="json", exclude_none=True) | {"colour": "green"}
    assert decode(json.dumps(data).encode(), [], FeedbackReceived).event == example()


def test_own_events_must_not_have_unknown_fields() -> None:
    with pytest.raises(ContractViolation) as caught:
        decode(b'{"event_id": "1", "colour": "green"}', [], BatchReady)
    assert "more" in caught.value.reason


@pytest.mark.parametrize(
    ("value", "headers", "field", "words"),
    [
        (None, [], "", "no value"),
        (b"", [], "", "no value"),
        (b"\xff\xfe", [], "", "not an event"),
        (b"{", [], "", "not an event"),
        (b"[1]", [], "", "an array"),
        (b"7", [], "", "a number"),
        (b"{}", [("ce_id", b"1")], "", "not an event"),
        (b'{"event_id": "1"}', [], "occurred_at", "required"),
        (
            json.dumps(example().model_dump(mode="json") | {"validation_score": 2}).encode(),
            [],
            "validation_score",
            "less than or equal to 1",
        ),
        (
            json.dumps(
                example().model_dump(mode="json") | {"validation_score": float("nan")}
            ).encode(),
            [],
            "validation_score",
            "finite number",
        ),
        (
            json.dumps(
                example().model_dump(mode="json") | {"feedback_type": "correction"}
            ).encode(),
            [],
            "corrected_output",
            "corrected_output is required",
        ),
        (
            json.dumps(example().model_dump(mode="json") | {"occurred_at": "yesterday"}).encode(),
            [],
            "occurred_at",
            "datetime",
        ),
        (b'{"a":' * 300 + b"1" + b"}" * 300, [], "", "not an event"),
    ],
)
def test_invalid_input_is_reported_with_field_and_reason(
    value: bytes | None, headers: list[tuple[str, bytes]], field: str, words: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        decode(value, headers, FeedbackReceived)
    assert caught.value.field == field
    assert words in caught.value.reason


LONG = "ada@example.com " * 3
TURN = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("sent", "field", "reason"),
    [
        (
            [TURN, {"role": "moderator", "content": "be brief"}],
            "input.1.role",
            "expected 'system', 'user', 'assistant' or 'tool', found 'moderator'",
        ),
        (
            [TURN, TURN, {"role": "assistant", "content": None, "tool_calls": []}],
            "input.2.content",
            "expected a string, found null; send its text, or leave the message out",
        ),
        (
            [{"role": "user", "content": {"type": "text", "text": "q"}}],
            "input.0.content",
            "expected a string, found an object",
        ),
        (
            [{"role": LONG, "content": 7}],
            "input.0.role",
            "expected 'system', 'user', 'assistant' or 'tool', found a string (and 1 more)",
        ),
        ([{"role": "user", "content": 7}], "input.0.content", "expected a string, found a number"),
        ([TURN, {"role": "user"}], "input.1.content", "Field required"),
        ([TURN, "q"], "input.1", "expected an object, found a string"),
        (TURN, "input", "expected a string or an array, found an object"),
        (7, "input", "expected a string or an array, found a number"),
    ],
)
def test_a_fault_in_a_conversation_names_its_message(sent: object, field: str, reason: str) -> None:
    data = example().model_dump(mode="json") | {"input": sent}
    with pytest.raises(ContractViolation) as caught:
        decode(json.dumps(data).encode(), [], FeedbackReceived)
    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize("sent", ["", []])
def test_an_empty_input_is_reported_as_such(sent: object) -> None:
    data = example().model_dump(mode="json") | {"input": sent}
    with pytest.raises(ContractViolation, match=r"^input: .* at least 1") as caught:
        decode(json.dumps(data).encode(), [], FeedbackReceived)
    assert caught.value.field == "input"


@given(
    st.binary(max_size=200),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_type", "content-type", "ce_time"]), st.binary(max_size=20)
        )
    ),
)
def test_arbitrary_bytes_raise_only_unprocessable(
    value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    with pytest.raises(Unprocessable):
        decode(value, headers, FeedbackReceived)


def test_a_foreign_type_is_decoded_as_the_default_type() -> None:
    data = json.dumps(example().model_dump(mode="json", exclude_none=True)).encode()
    attributes = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"shop.feedback"),
        ("ce_source", b"/a"),
        ("ce_id", b"e1"),
    ]
    for headers in ([], attributes):
        assert (
            decode(data, headers, UserForgotten, FeedbackReceived, default=FeedbackReceived).event
            == example()
        )
        with pytest.raises(Undecodable, match="expected an event of type"):
            decode(data, headers, UserForgotten, FeedbackReceived)
    unknown = [
        (name, b"ratchet.Novelty.v1" if name == "ce_type" else value) for name, value in attributes
    ]
    with pytest.raises(Undecodable, match=r"found ratchet\.Novelty\.v1"):
        decode(data, unknown, UserForgotten, FeedbackReceived, default=FeedbackReceived)


def test_a_topic_with_several_types_needs_the_type() -> None:
    value, headers = encode(example(), "/a")
    with pytest.raises(Undecodable, match="expected an event of type"):
        decode(value, headers, CheckpointSaved, TrainingRolledBack)


ATTRIBUTES = [("ce_specversion", b"1.0"), ("ce_type", b"x"), ("ce_source", b"/a")]
ENVELOPE = {"specversion": "1.0", "type": "x", "source": "/a", "id": "e1"}
STRUCTURED = [("content-type", b"application/cloudevents+json")]


def test_missing_envelope_attributes_are_not_generated() -> None:
    """The library would generate a different id and time at each decoding."""
    data = example().model_dump(mode="json", exclude_none=True)
    nameless = {
        name: value for name, value in data.items() if name not in ("event_id", "occurred_at")
    }
    for value, headers in (
        (nameless, ATTRIBUTES),
        ({"specversion": "1.0", "type": "x", "source": "/a", "data": nameless}, STRUCTURED),
    ):
        with pytest.raises(ContractViolation) as caught:
            decode(json.dumps(value).encode(), headers, FeedbackReceived)
        assert caught.value.field == "event_id"
    assert decode(json.dumps(data).encode(), ATTRIBUTES, FeedbackReceived).event == example()


def test_the_content_type_decides_the_mode() -> None:
    data = example().model_dump(mode="json", exclude_none=True)
    structured_event = json.dumps(ENVELOPE | {"source": "/structured", "data": data}).encode()
    decoded = decode(
        structured_event,
        [*ATTRIBUTES, ("Content-Type", b"Application/CloudEvents+JSON")],
        FeedbackReceived,
    )
    assert (decoded.event, decoded.source) == (example(), "/structured")


def test_the_last_header_with_a_value_counts() -> None:
    data = json.dumps(example().model_dump(mode="json", exclude_none=True)).encode()
    headers = [
        *ATTRIBUTES,
        ("ce_source", b"/b"),
        ("CE_SOURCE", b"/c"),
        ("ce_source", None),
        ("content-type", None),
    ]
    assert decode(data, headers, FeedbackReceived).source == "/c"


@pytest.mark.parametrize(
    ("value", "headers", "field", "words"),
    [
        (
            json.dumps(ENVELOPE | {"type": 5, "data": {}}).encode(),
            [],
            "type",
            "expected a string, found a number",
        ),
        (
            json.dumps(ENVELOPE | {"source": {}, "data": {}}).encode(),
            [],
            "source",
            "expected a string, found an object",
        ),
        (
            b'{"data": {"output": "\\ud800"}, ' + json.dumps(ENVELOPE).encode()[1:],
            STRUCTURED,
            "",
            "not an event",
        ),
        (
            b"[]",
            [("content-type", b"application/cloudevents-batch+json")],
            "content-type",
            "batched mode",
        ),
        (
            json.dumps(
                example().model_dump(mode="json") | {"occurred_at": "0001-01-01T00:00:00+14:00"}
            ).encode(),
            [],
            "occurred_at",
            "before the year 1",
        ),
    ],
)
def test_malformed_envelopes_are_reported(
    value: bytes, headers: list[tuple[str, bytes]], field: str, words: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        decode(value, headers, FeedbackReceived)
    assert (caught.value.field, words in caught.value.reason) == (field, True), caught.value


def test_an_event_over_the_size_limit_is_not_encoded() -> None:
    with pytest.raises(TooLarge, match="at most"):
        encode(example(output="x" * MAX_EVENT_BYTES), "/a")


def test_the_data_of_an_invalid_event_can_be_shown() -> None:
    assert try_decode_data(b'{"model": "support"}', [])["model"] == "support"
    assert try_decode_data(json.dumps(ENVELOPE | {"data": {"model": 5}}).encode(), STRUCTURED) == {
        "model": 5
    }
    for value in (None, b"", b"{", b"[]"):
        assert try_decode_data(value, []) == {}
