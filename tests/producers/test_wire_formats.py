"""Feedback in the formats of other tools, on a real broker and over HTTP."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.events import FeedbackReceived, FeedbackScored
from shared.messaging.codec import decode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, dead_letter_topic
from tests.dead_letters.kafka_access import all_committed, put, read_all, service
from tests.dead_letters.test_malformed_input import golden_event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

ENVELOPE = {"specversion": "1.0", "type": "app.feedback", "source": "/app", "id": "e"}
SCHEMA_ID = b"\x00\x00\x00\x00\x07"


def feedback(event_id: str) -> dict[str, Any]:
    return golden_event(FeedbackReceived) | {"event_id": event_id}


def cloud_event(event_id: str) -> dict[str, Any]:
    content = json.dumps(feedback(event_id)).encode()
    return ENVELOPE | {"data_base64": base64.b64encode(content).decode()}


async def test_json_is_scored_and_the_rest_is_named(new_topics: str, tmp_path: Path) -> None:
    read = [
        SCHEMA_ID + json.dumps(feedback("confluent")).encode(),
        json.dumps({"schema": {"type": "struct"}, "payload": feedback("connect")}).encode(),
        json.dumps(cloud_event("base64")).encode(),
    ]
    unreadable = {
        SCHEMA_ID + b"\x0asupport": "Confluent's wire format (schema id 7)",
        b'{"schema": null, "payload": "an answer"}': "Kafka Connect's envelope",
    }
    scoring = service("feedback", new_topics, tmp_path)
    await scoring.start()
    try:
        await put(
            new_topics,
            FEEDBACK_RECEIVED,
            [(b"k", value, [("content-type", b"application/json")]) for value in read]
            + [(b"k", value, []) for value in unreadable],
        )
        async with httpx.AsyncClient() as client:
            response = await client.post(
                f"http://127.0.0.1:{scoring.port}/v1/feedback", json=[cloud_event("posted")]
            )
        assert (response.status_code, response.json()["event_ids"]) == (202, ["posted"])
        await all_committed(new_topics, scoring, "ratchet-feedback", FEEDBACK_RECEIVED)
    finally:
        status = scoring.stop()
    assert status == 0, scoring.log
    scored = [
        decode(record.value, record.headers, FeedbackScored).event.event_id
        for record in await read_all(new_topics, FEEDBACK_SCORED)
    ]
    assert sorted(scored) == ["base64", "confluent", "connect", "posted"]
    letters = await read_all(new_topics, dead_letter_topic(FEEDBACK_RECEIVED))
    assert [letter.value for letter in letters] == list(unreadable)
    for letter in letters:
        info = DeadLetterInfo.from_headers(letter.headers)
        assert info is not None
        assert unreadable[letter.value or b""] in info.reason
