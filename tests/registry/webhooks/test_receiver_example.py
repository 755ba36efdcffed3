"""The example of a receiver accepts Ratchet's messages once each, and nothing else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from ratchet.local_stack.ports import free_port
from services.registry.webhooks.endpoints import WebhookEndpoint
from services.registry.webhooks.messages import signed_headers
from tests.registry.webhooks.test_messages import OTHER_SECRET, SECRET

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"
BODY = json.dumps(
    {
        "type": "champion.promoted",
        "timestamp": "2026-07-01T12:00:00+00:00",
        "data": {"model": "support", "version": "v2", "reason": "better"},
    }
).encode()


@pytest.fixture
def example() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a running example, and its process."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(port)],
        env=os.environ | {"RATCHET_WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                httpx.get(address)
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield address, process
        process.kill()


def headers_of(secret: str, identifier: str, body: bytes, age: timedelta) -> dict[str, str]:
    endpoint = WebhookEndpoint.model_validate(
        {"name": "chat", "url": "http://127.0.0.1/", "secret": secret}
    )
    return signed_headers(identifier, datetime.now(UTC) - age, body, endpoint.keys)


def test_example_prints_each_message_once(
    example: tuple[str, subprocess.Popen[str]],
) -> None:
    address, process = example
    now = timedelta()
    good = headers_of(SECRET, "msg_1", BODY, now)
    Webhook(SECRET).verify(BODY, good)
    sent = [
        (good, BODY, 204),
        (good, BODY, 204),
        (good, BODY.replace(b"v2", b"v3"), 400),
        (good | {"webhook-id": "msg_2"}, BODY, 400),
        (headers_of(OTHER_SECRET, "msg_3", BODY, now), BODY, 400),
        (headers_of(SECRET, "msg_4", BODY, timedelta(minutes=6)), BODY, 400),
        ({}, BODY, 400),
        (headers_of(SECRET, "msg_5", BODY, now), BODY, 204),
    ]
    for headers, body, status in sent:
        assert httpx.post(address, content=body, headers=headers).status_code == status
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read().splitlines() == ["champion.promoted support v2 better"] * 2
