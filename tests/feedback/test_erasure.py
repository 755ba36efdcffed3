"""Withdrawal requests: from `UserForgotten` to one request for each shard."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.feedback.erasure import KeyedRequest, decode_user_forgotten, withdrawal_requests
from services.feedback.scoring import Policies
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import ContractViolation, UnknownModel
from shared.events import Position, UserForgotten
from shared.messaging.bus import Record
from shared.messaging.codec import Headers
from shared.redaction.pseudonyms import pseudonym


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
POSITION = Position(topic="feedback.received", partition=2, offset=17)


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
        POSITION.topic,
        POSITION.partition,
        POSITION.offset,
        b"ann",
        json.dumps(data).encode(),
        tuple(headers),
    )


def binary(data: Any, event_type: str = UserForgotten.type_name()) -> Record:
    return record(
        data, [(f"ce_{name}", value.encode()) for name, value in attributes(event_type).items()]
    )


def requests(position: Position = POSITION, **fields: Any) -> list[KeyedRequest]:
    forgotten = decode_user_forgotten(binary(FORGOTTEN | fields))
    assert forgotten is not None
    return withdrawal_requests(forgotten, position, Policies(MODELS))


def test_the_event_type_tells_user_forgotten_from_feedback() -> None:
    for message in (
        binary(FORGOTTEN | {"colour": "ignored"}),
        record(
            attributes(UserForgotten.type_name()) | {"data": FORGOTTEN},
            [("content-type", b"application/cloudevents+json")],
        ),
    ):
        forgotten = decode_user_forgotten(message)
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
    shard_requests = requests(reason="asked by letter")
    assert [
        (request.event.model, request.event.shard, request.key) for request in shard_requests
    ] == [
        ("support", 0, "support#0"),
        ("support", 1, "support#1"),
        ("support", 2, "support#2"),
        ("sales", 0, "sales"),
    ]
    assert {
        (request.event.user_id, request.event.forgotten, request.event.reason)
        for request in shard_requests
    } == {("ann", "/shop|f", "asked by letter")}
    assert {request.event.received for request in shard_requests} == {POSITION}


def test_a_named_model_is_the_only_one_requested() -> None:
    assert [request.key for request in requests(model="sales")] == ["sales"]
    with pytest.raises(UnknownModel):
        requests(model="other")


def test_requests_depend_on_the_event_and_its_position() -> None:
    assert requests() == requests()
    at_another_position = requests(POSITION.model_copy(update={"partition": 3}))
    assert len({request.event.event_id for request in (*requests(), *at_another_position)}) == 8


def test_a_too_long_id_with_its_source_is_refused() -> None:
    with pytest.raises(ContractViolation) as refused:
        requests(event_id="e" * 251)
    assert refused.value.field == "source"
    assert requests(event_id="e" * 250)
