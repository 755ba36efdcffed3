"""From a user who is to be forgotten to one request for each shard."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.feedback.erasure import KeyedRequest, decode_user_forgotten, withdrawal_requests
from services.feedback.redaction.pseudonyms import pseudonym
from services.feedback.scoring import Policies
from shared.config.model_file import ModelFile, Models
from shared.errors import ContractViolation, UnknownModel
from shared.events import Position, UserForgotten
from shared.messaging.bus import Record
from shared.messaging.codec import Headers


def model(name: str, shards: int) -> ModelFile:
    return ModelFile.model_validate(
        {"model": name, "base": {"training": "base", "serving": "base.gguf"}, "shards": shards}
    )


MODELS = Models({"support": model("support", 3), "sales": model("sales", 1)}, Path())
FORGOTTEN: dict[str, Any] = {
    "event_id": "f",
    "occurred_at": "2026-01-01T00:00:00Z",
    "user_id": "ann",
}
FEEDBACK = FORGOTTEN | {
    "model": "support",
    "input": "q",
    "output": "ratchet.UserForgotten.v1",
    "feedback_type": "thumbs_up",
}
PLACE = Position(topic="feedback.received", partition=2, offset=17)


def attributes(event_type: str) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "type": event_type,
        "source": "/shop",
        "id": "f",
        "time": "2026-01-01T00:00:00Z",
    }


def record(data: Any, headers: Headers = ()) -> Record:
    return Record(
        PLACE.topic,
        PLACE.partition,
        PLACE.offset,
        b"ann",
        json.dumps(data).encode(),
        tuple(headers),
    )


def binary(data: Any, event_type: str = UserForgotten.type_name()) -> Record:
    return record(
        data, [(f"ce_{name}", value.encode()) for name, value in attributes(event_type).items()]
    )


def requests(place: Position = PLACE, **fields: Any) -> list[KeyedRequest]:
    forgotten = decode_user_forgotten(binary(FORGOTTEN | fields))
    assert forgotten is not None
    return withdrawal_requests(forgotten, place, Policies(MODELS))


def test_the_event_type_tells_user_forgotten_from_feedback() -> None:
    for said in (
        binary(FORGOTTEN | {"colour": "ignored"}),
        record(
            attributes(UserForgotten.type_name()) | {"data": FORGOTTEN},
            [("content-type", b"application/cloudevents+json")],
        ),
    ):
        forgotten = decode_user_forgotten(said)
        assert forgotten is not None
        assert (forgotten.event.user_id, forgotten.source) == ("ann", "/shop")
    for feedback in (
        record(FEEDBACK),
        binary(FEEDBACK, "shop.feedback"),
        record(FORGOTTEN),
        record(None),
    ):
        assert decode_user_forgotten(feedback) is None


def test_the_request_has_the_pseudonym_of_scored_feedback() -> None:
    assert {request.event.user_id for request in requests(user_id="ann@example.com")} == {
        pseudonym("user", "ann@example.com")
    }
    assert {request.event.user_id for request in requests(user_id="ann")} == {"ann"}


def test_a_request_without_a_user_is_refused_with_the_field() -> None:
    with pytest.raises(ContractViolation) as refused:
        decode_user_forgotten(binary({"user_id": ""}))
    assert refused.value.field == "user_id"


def test_every_shard_gets_a_request_under_its_key() -> None:
    asked = requests(reason="asked by letter")
    assert [(one.event.model, one.event.shard, one.key) for one in asked] == [
        ("support", 0, "support#0"),
        ("support", 1, "support#1"),
        ("support", 2, "support#2"),
        ("sales", 0, "sales"),
    ]
    assert {(one.event.user_id, one.event.forgotten, one.event.reason) for one in asked} == {
        ("ann", "/shop|f", "asked by letter")
    }
    assert {one.event.received for one in asked} == {PLACE}


def test_a_named_model_is_the_only_one_requested() -> None:
    assert [one.key for one in requests(model="sales")] == ["sales"]
    with pytest.raises(UnknownModel):
        requests(model="other")


def test_requests_depend_on_the_event_and_its_position() -> None:
    assert requests() == requests()
    elsewhere = requests(PLACE.model_copy(update={"partition": 3}))
    assert len({one.event.event_id for one in (*requests(), *elsewhere)}) == 8


def test_a_too_long_id_with_its_source_is_refused() -> None:
    with pytest.raises(ContractViolation) as refused:
        requests(event_id="e" * 251)
    assert refused.value.field == "source"
    assert requests(event_id="e" * 250)
