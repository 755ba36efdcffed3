"""The feedback service on a real broker: scoring, dead letters, redaction."""

import json
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shared.events import FeedbackScored
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, dead_letter_topic
from tests.support.service_process import Headers, ServiceProcess, read, send

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def feedback_data(model: str, event_id: str | None, **changed: Any) -> dict[str, Any]:
    event = {
        "model": model,
        "input": "q",
        "output": "a",
        "feedback_type": "thumbs_up",
        "occurred_at": "2026-01-01T00:00:00Z",
    } | changed
    return event | ({"event_id": event_id} if event_id else {})


def attributes(event_id: str) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "type": "app.feedback",
        "source": "/app",
        "id": event_id,
        "time": "2026-01-01T00:00:00Z",
    }


async def collect(broker: str, topic: str, model: str, count: int) -> list[Record]:
    """Return the first `count` records of a topic that mention a model."""
    matching: list[Record] = []
    async with aclosing(read(broker, topic)) as records:
        async for record in records:
            if model.encode() in (record.value or b"") + (record.key or b""):
                matching.append(record)
            if len(matching) == count:
                break
    return matching


async def test_every_event_form_is_scored_and_others_dead_letter(
    broker: str, tmp_path: Path
) -> None:
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    key = model.encode()
    binary = [
        ("content-type", b"application/json"),
        *((f"ce_{name}", value.encode()) for name, value in attributes("binary").items()),
    ]
    structured = [("content-type", b"application/cloudevents+json")]
    bad = [
        (f'{{"model": "{model}", cut'.encode(), ""),
        (json.dumps(feedback_data(model, "b1", validation_score=3)).encode(), "validation_score"),
        (json.dumps(feedback_data(f"{model}-other", "b2")).encode(), "model"),
    ]
    messages: list[tuple[bytes | None, bytes | None, Headers]] = [
        (key, json.dumps(feedback_data(model, None)).encode(), binary),
        (
            key,
            json.dumps(attributes("structured") | {"data": feedback_data(model, None)}).encode(),
            structured,
        ),
        (key, json.dumps(feedback_data(model, "bare", unknown="ignored")).encode(), []),
        *((key, value, [("trace", b"1"), ("trace", b"2")]) for value, _ in bad),
        (key, None, []),
    ]
    service = ServiceProcess(
        "feedback", broker, tmp_path, RATCHET_FEEDBACK_GROUP=f"feedback-{model}"
    )
    await service.start()
    try:
        await send(broker, FEEDBACK_RECEIVED, messages)
        scored = await collect(broker, FEEDBACK_SCORED, model, 3)
        letters = await collect(broker, dead_letter_topic(FEEDBACK_RECEIVED), model, 4)
    finally:
        status = service.stop()
    assert status == 0, service.log
    events = [decode(record.value, record.headers, FeedbackScored) for record in scored]
    assert [event.event.identity for event in events] == ["/app|binary", "/app|structured", "bare"]
    assert {(event.source, event.event.reward, event.event.shard) for event in events} == {
        ("/ratchet/feedback", 1.0, 0)
    }
    assert {record.key for record in scored} == {key}
    for letter, (value, field) in zip(letters, [*bad, (None, "")], strict=True):
        info = DeadLetterInfo.from_headers(letter.headers)
        assert info is not None
        assert (letter.key, letter.value, info.field) == (key, value, field)
        assert (info.topic, info.service, info.attempt) == (FEEDBACK_RECEIVED, "feedback", 1)
        assert info.reason
    assert letters[0].headers[:2] == (("trace", b"1"), ("trace", b"2"))


PERSONAL = {
    "ada.lovelace@example.com": "email",
    "+49 30 1234567": "phone",
    "4111 1111 1111 1111": "card",
    "DE89 3704 0044 0532 0130 00": "iban",
    "203.0.113.9": "ip",
    "AKIA" + "IOSFODNN7EXAMPLE": "secret",
}


def personal(model: str, number: int, value: str) -> dict[str, Any]:
    """Build an event with a value in every field that can hold it."""
    return feedback_data(
        model,
        f"{number}-{value}",
        feedback_type="correction",
        input=[
            {"role": "system", "content": f"Help {value}"},
            {"role": "user", "content": f'{{"me": "{value}"}}'},
        ],
        output=json.dumps({"to": f"\n{value}"}),
        corrected_output=f"Dear {value}!",
        user_id=f"id {value}",
        conversation_id=f"with {value}",
        response_id=f"to {value}",
        tags={"from": value},
    )


async def test_no_personal_data_reaches_scored_feedback(broker: str, tmp_path: Path) -> None:
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    messages: list[tuple[bytes | None, bytes | None, Headers]] = [
        (
            value.encode(),
            json.dumps(personal(model, number, value)).encode(),
            [("ce_specversion", b"1.0"), *envelope(number, value)],
        )
        for number, value in enumerate(PERSONAL)
    ]
    service = ServiceProcess(
        "feedback", broker, tmp_path, RATCHET_FEEDBACK_GROUP=f"feedback-{model}"
    )
    await service.start()
    try:
        await send(broker, FEEDBACK_RECEIVED, messages)
        scored = await collect(broker, FEEDBACK_SCORED, model, len(messages))
        metrics = service.metrics
    finally:
        status = service.stop()
    assert status == 0, service.log
    assert len(scored) == len(PERSONAL)
    for record in scored:
        content = b"|".join(
            [record.key or b"", record.value or b"", *(value or b"" for _, value in record.headers)]
        ).decode()
        for value in PERSONAL:
            assert value not in content
            assert value.replace(" ", "") not in content
    for kind in PERSONAL.values():
        assert f'ratchet_feedback_redactions_total{{kind="{kind}",model="{model}"}} 10.0' in metrics
    assert not any(value in service.log for value in PERSONAL)


def envelope(number: int, value: str) -> list[tuple[str, bytes]]:
    attributes = {
        "type": "app.feedback",
        "source": f"mailto:{value}",
        "id": f"{number}-{value}",
        "time": "2026-01-01T00:00:00Z",
    }
    return [(f"ce_{name}", content.encode()) for name, content in attributes.items()]
