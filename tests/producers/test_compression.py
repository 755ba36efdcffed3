"""Compressed batches, from producers of other languages and from topics that compress."""

import json
from pathlib import Path

import httpx
import pytest

from shared.events import FeedbackReceived, FeedbackScored
from shared.kafka.client import KafkaConsumer
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TRAINING_PROGRESS
from tests.dead_letters.kafka_access import (
    all_committed,
    read_all,
    service,
    set_topic,
)
from tests.dead_letters.test_malformed_input import golden_event
from tests.producers.foreign_producers import Producers

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

CODECS = ("gzip", "snappy", "lz4", "zstd")
CLIENTS = ("librdkafka", "franz-go")


def feedback(event_id: str) -> str:
    """Return an event that every codec shortens."""
    event = golden_event(FeedbackReceived) | {"event_id": event_id, "output": "word " * 200}
    return json.dumps(event)


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_group_member_reads_every_codec(producers: Producers, client: str) -> None:
    broker, sent = producers.bootstrap_servers, list[bytes]()
    for codec in ("", *CODECS):
        value = f"{codec} ".ljust(2000, "x")
        await producers.send(client, TRAINING_PROGRESS, [("k", value)], codec)
        sent.append(value.encode())
    consumer = KafkaConsumer(broker, f"codecs-{client}", [TRAINING_PROGRESS])
    await consumer.start()
    received = []
    try:
        async for record in consumer.records():
            received.append(record.value)
            await consumer.commit(record)
            if len(received) == len(sent):
                consumer.stop_after_current()
    finally:
        await consumer.stop()
    assert received == sent


async def test_services_read_every_codec_through_a_restart(
    producers: Producers, tmp_path: Path
) -> None:
    broker, sent = producers.bootstrap_servers, set[str]()
    scoring, dataset = (service(name, broker, tmp_path) for name in ("feedback", "dataset"))

    async def send_from_all(codec: str, where: str) -> None:
        for client in CLIENTS:
            ids = [f"{where}-{client}-{codec}-{number}" for number in range(3)]
            await producers.send(
                client, FEEDBACK_RECEIVED, [("k", feedback(name)) for name in ids], codec
            )
            sent.update(ids)

    async def wait_until_handled() -> None:
        await all_committed(broker, scoring, "ratchet-feedback", FEEDBACK_RECEIVED)
        await all_committed(broker, dataset, "ratchet-dataset", FEEDBACK_SCORED)

    for codec in ("", *CODECS):
        await send_from_all(codec, "plain")
    await scoring.start()
    await dataset.start()
    try:
        await wait_until_handled()
        for codec in CODECS:
            for topic in (FEEDBACK_RECEIVED, FEEDBACK_SCORED):
                await set_topic(broker, topic, "compression.type", codec)
            await send_from_all("", f"topic-{codec}")
            async with httpx.AsyncClient() as client:
                response = await client.post(
                    f"http://127.0.0.1:{scoring.port}/v1/feedback",
                    content=feedback(f"intake-{codec}"),
                    headers={"Content-Type": "application/json"},
                )
            assert response.status_code == 202, response.text
            sent.add(f"intake-{codec}")
        await wait_until_handled()
        assert (scoring.stop(), dataset.stop()) == (0, 0)
        for codec in CODECS:
            await send_from_all(codec, "again")
        await scoring.start()
        await dataset.start()
        await wait_until_handled()
    finally:
        scoring.stop()
        dataset.stop()
    scored = [
        decode(record.value, record.headers, FeedbackScored).event.event_id
        for record in await read_all(broker, FEEDBACK_SCORED)
    ]
    assert sorted(scored) == sorted(sent)
