"""Events inside the formats of other tools: read where they are whole JSON, else named."""

import base64
import json
from typing import Any

import pytest

from shared.errors import ContractViolation, Undecodable
from shared.events import FeedbackReceived
from shared.messaging.codec import decode, try_decode_data
from tests.shared.messaging.test_codec import ATTRIBUTES, ENVELOPE, STRUCTURED, example

DATA = example().model_dump(mode="json", exclude_none=True)
PLAIN = json.dumps(DATA).encode()
SCHEMA_ID = b"\x00\x00\x00\x01\x02"
SCHEMA = {"type": "struct", "fields": [], "optional": False}
JSON_TYPE = [("content-type", b"application/json")]


def connect(payload: Any, schema: Any = SCHEMA) -> bytes:
    return json.dumps({"schema": schema, "payload": payload}).encode()


def cloud_event(data: str) -> bytes:
    return json.dumps(ENVELOPE | {"data_base64": data}).encode()


@pytest.mark.parametrize(
    ("value", "headers", "source"),
    [
        (SCHEMA_ID + PLAIN, [], ""),
        (SCHEMA_ID + b" \n" + PLAIN, JSON_TYPE, ""),
        (SCHEMA_ID + PLAIN, ATTRIBUTES, "/a"),
        (SCHEMA_ID + json.dumps(ENVELOPE | {"data": DATA}).encode(), STRUCTURED, "/a"),
        (connect(DATA), [], ""),
        (connect(DATA, schema=None), JSON_TYPE, ""),
        (connect(PLAIN.decode(), schema={"type": "string", "optional": False}), [], ""),
        (connect(DATA), ATTRIBUTES, "/a"),
        (connect(ENVELOPE | {"data": DATA}), [], "/a"),
        (SCHEMA_ID + connect(DATA), [], ""),
        (cloud_event(base64.b64encode(PLAIN).decode()), JSON_TYPE, "/a"),
        (cloud_event(base64.b64encode(PLAIN).decode()), [], "/a"),
        (cloud_event(base64.b64encode(PLAIN).decode()), STRUCTURED, "/a"),
    ],
)
def test_a_whole_json_event_is_read(
    value: bytes, headers: list[tuple[str, bytes]], source: str
) -> None:
    decoded = decode(value, headers, FeedbackReceived)
    assert (decoded.event, decoded.source) == (example(), source)
    assert try_decode_data(value, headers) == DATA


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        (
            SCHEMA_ID + b"\x02\x0esupport",
            "",
            ("Confluent's wire format (schema id 258)", "Avro", "set value.serializer"),
        ),
        (SCHEMA_ID, "", ("Confluent's wire format",)),
        (SCHEMA_ID + b"{", "", ("not an event",)),
        (b"\x00{}", "", ("not an event",)),
        (connect(None), "payload", ("Kafka Connect's envelope", "null", "schemas.enable=false")),
        (connect("thumbs up"), "payload", ("Kafka Connect's envelope", "a string")),
        (connect([DATA]), "payload", ("Kafka Connect's envelope", "an array")),
        (cloud_event("no base64!"), "data_base64", ("send the event as `data`",)),
        (cloud_event(base64.b64encode(b"\x02\x0e").decode()), "data_base64", ("not JSON",)),
        (json.dumps(ENVELOPE | {"data_base64": 7}).encode(), "data_base64", ("not JSON",)),
        (cloud_event(base64.b64encode(b"[]").decode()), "", ("found an array",)),
    ],
)
def test_anything_else_names_the_format_and_what_to_set(
    value: bytes, field: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(value, [], FeedbackReceived)
    assert caught.value.field == field
    assert [word for word in words if word not in caught.value.reason] == [], caught.value


def test_an_invalid_field_inside_is_named_as_in_the_event() -> None:
    with pytest.raises(ContractViolation, match=r"^validation_score: "):
        decode(SCHEMA_ID + connect(DATA | {"validation_score": 2}), [], FeedbackReceived)
