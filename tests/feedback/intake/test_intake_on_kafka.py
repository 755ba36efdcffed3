"""The service's intake on a real broker: an event answered 202 is in Kafka, also after a kill."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from services.feedback.intake.delivery import KafkaDelivery
from shared.events import FeedbackReceived, FeedbackScored
from shared.http.bounded_server import serve_in_thread, server_config
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED
from tests.feedback.test_service import collect, feedback_data
from tests.support.intake_server import RunningIntake
from tests.support.service_process import ServiceProcess
from tests.support.service_process import read as read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

TOKEN = "a-token-that-may-send"


class Sender:
    """An application that posts to the service."""

    def __init__(self, service: ServiceProcess, model: str, client: httpx.AsyncClient) -> None:
        self.service, self.model, self._client = service, model, client

    async def post(self, body: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.service.port}/v1/feedback"
        return await self._client.post(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
async def sender(own_broker: Broker, tmp_path: Path) -> AsyncIterator[Sender]:
    model = f"m{uuid4().hex[:8]}"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{model}.yaml").write_text(
        f"model: {model}\nbase: {{training: base, serving: base.gguf}}\n"
    )
    (tmp_path / "tokens").write_text(f"send {TOKEN}\n")
    settings = {
        "RATCHET_FEEDBACK_GROUP": f"feedback-{model}",
        "RATCHET_INTAKE_TOKENS_FILE": str(tmp_path / "tokens"),
        "RATCHET_INTAKE_ACKNOWLEDGED_SECONDS": "2",
    }
    service = ServiceProcess("feedback", own_broker.bootstrap_servers, tmp_path, **settings)
    await service.start()
    try:
        async with httpx.AsyncClient(timeout=20) as client:
            yield Sender(service, model, client)
    finally:
        if service.process and service.process.poll() is None:
            service.kill()


async def test_accepted_feedback_survives_a_hung_broker_and_a_kill(
    own_broker: Broker, sender: Sender
) -> None:
    model, accepted = sender.model, list[str]()
    answer = await sender.post(
        [feedback_data(model, f"e{number}", user_id="ada") for number in range(20)]
    )
    assert answer.status_code == 202, answer.text
    accepted += answer.json()["event_ids"]
    rejected = await sender.post(
        [feedback_data(model, "never"), feedback_data(model, "neither", validation_score=7)]
    )
    assert (rejected.status_code, rejected.json()["index"], rejected.json()["field"]) == (
        422,
        1,
        "validation_score",
    )

    assert own_broker.process
    own_broker.process.send_signal(signal.SIGSTOP)
    try:
        unavailable = await sender.post(feedback_data(model, "during", user_id="ada"))
        assert (unavailable.status_code, unavailable.headers["retry-after"]) == (503, "5")
    finally:
        own_broker.process.send_signal(signal.SIGCONT)
    again = await sender.post(feedback_data(model, "during", user_id="ada"))
    assert again.status_code == 202, again.text
    metrics = sender.service.metrics

    async def post_until_the_service_dies() -> None:
        for number in range(100_000):
            answer = await sender.post([feedback_data(model, f"late{number}", user_id="ada")])
            accepted.extend(answer.json()["event_ids"] if answer.status_code == 202 else [])

    posting = asyncio.create_task(post_until_the_service_dies())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(sender.service.kill)
    with pytest.raises(httpx.TransportError):
        await posting
    assert len(accepted) > 25, "some were accepted just before the kill"

    accepted.append("during")
    event_ids = await received_ids(own_broker.bootstrap_servers, model, set(accepted))
    assert not set(accepted) - event_ids
    assert not event_ids & {"never", "neither"}
    scored = await collect(own_broker.bootstrap_servers, FEEDBACK_SCORED, model, 20)
    assert {
        decode(record.value, record.headers, FeedbackScored).event.event_id for record in scored
    } <= set(accepted)
    assert 'ratchet_intake_requests_total{status="503"} 1.0' in metrics
    assert "ratchet_intake_events_total 21.0" in metrics


async def test_start_and_stop_without_kafka() -> None:
    delivery, port = KafkaDelivery(f"127.0.0.1:{free_port()}", 1), free_port()
    intake = RunningIntake(delivery=delivery)
    start = partial(serve_in_thread, server_config(intake.app), "127.0.0.1", port, "intake")
    stop = await asyncio.to_thread(start)
    try:
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"http://127.0.0.1:{port}/v1/feedback", json=feedback_data("support", "e")
            )
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        with pytest.raises(OSError, match="in use"):
            await asyncio.to_thread(start)
    finally:
        async with asyncio.timeout(10):
            await asyncio.to_thread(stop)


async def test_the_intake_can_be_disabled(broker: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "quiet.yaml").write_text(
        "model: quiet\nbase: {training: base, serving: base.gguf}\n"
    )
    service = ServiceProcess(
        "feedback",
        broker,
        tmp_path,
        RATCHET_FEEDBACK_GROUP=f"feedback-{uuid4().hex[:8]}",
        RATCHET_INTAKE="false",
    )
    service.launch()
    try:
        await service.wait_until(service.is_live, "live")
        async with httpx.AsyncClient() as client:
            assert (
                await client.post(f"http://127.0.0.1:{service.port}/v1/feedback", json={})
            ).status_code == 404
        assert "ratchet_feedback_received_total" in service.metrics
    finally:
        service.kill()


async def received_ids(broker: str, model: str, expected: set[str]) -> set[str]:
    """Return the ids of a model's events in Kafka, once all expected ids are among them."""
    event_ids: set[str] = set()
    async with aclosing(read_topic(broker, FEEDBACK_RECEIVED)) as records:
        async for record in records:
            if model.encode() in (record.value or b""):
                event_ids.add(decode(record.value, record.headers, FeedbackReceived).event.event_id)
            if expected <= event_ids:
                break
    return event_ids
