"""`ratchet feedback` on a real broker."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from ratchet.demo.event_watcher import read_records
from ratchet.local_stack.ports import free_port
from shared.errors import Unprocessable
from shared.events import FeedbackReceived
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED

pytestmark = pytest.mark.kafka

SEND = ("feedback", "send", "--model", "support", "--input", "Hi", "--output", "Hello")


def run(broker: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "RATCHET_BOOTSTRAP_SERVERS": broker,
        "RATCHET_REGISTRY": f"http://127.0.0.1:{free_port()}",
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def ratchet(broker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(broker, sys.executable, "-m", "ratchet", *arguments)


async def received(broker: str) -> dict[str, FeedbackReceived]:
    """Return the valid events received so far, by id; other tests send invalid bytes."""
    events = {}
    for record in await read_records(broker, [FEEDBACK_RECEIVED]):
        with suppress(Unprocessable):
            event = decode(record.value, record.headers, FeedbackReceived).event
            events[event.event_id] = event
    return events


async def test_send_publishes_the_feedback(broker: str) -> None:
    event_id = str(uuid4())
    conversation = json.dumps(
        [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Hi"}]
    )
    options = (
        "--type",
        "correction",
        "--corrected",
        "Good day",
        "--comment",
        "Too informal.",
        "--user",
        "u1",
        "--event-id",
        event_id,
        "--json",
    )
    process = ratchet(
        broker,
        "feedback",
        "send",
        "--model",
        "support",
        "--input",
        conversation,
        "--output",
        "Hello",
        *options,
    )
    assert json.loads(process.stdout) == {"sent": 1, "event_id": event_id}, process.stderr
    event = (await received(broker))[event_id]
    assert [message.role for message in event.messages] == ["system", "user"]
    assert (event.corrected_output, event.user_id, event.feedback_type) == (
        "Good day",
        "u1",
        "correction",
    )
    assert event.comment == "Too informal."


def test_send_rejects_invalid_feedback(broker: str) -> None:
    process = ratchet(broker, *SEND, "--type", "correction")
    assert process.returncode == 1
    assert "corrected_output is required" in process.stderr
    assert ratchet(broker, *SEND, "--score", "2").returncode == 1


def test_an_unreachable_broker_is_a_one_line_error() -> None:
    process = ratchet(f"127.0.0.1:{free_port()}", *SEND)
    assert process.returncode == 1
    assert process.stderr.startswith("error: no Kafka broker answers")
    assert "RATCHET_BOOTSTRAP_SERVERS" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout


async def test_import_sends_all_events_or_none(broker: str, tmp_path: Path) -> None:
    line = {
        "event_id": "f1",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": "support",
        "input": "a",
        "output": "b",
        "feedback_type": "accepted",
    }
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(line) + "\n\n" + json.dumps(line | {"event_id": "f2"}) + "\n")
    bad.write_text(
        json.dumps(line | {"event_id": "f3"})
        + "\n"
        + json.dumps(line | {"event_id": "f4", "output": None})
        + "\n"
    )
    assert json.loads(ratchet(broker, "feedback", "import", str(good), "--json").stdout) == {
        "sent": 2
    }
    rejected = ratchet(broker, "feedback", "import", str(bad))
    assert (rejected.returncode, "bad.jsonl:2: output" in rejected.stderr.replace("\n", "")) == (
        1,
        True,
    ), rejected.stderr
    assert {"f1", "f2"} <= set(await received(broker))
    assert not {"f3", "f4"} & set(await received(broker))
