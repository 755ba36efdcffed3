"""Handling of BatchReady: each batch is stored once, also from a real broker."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from services.registry.store.tables import BatchRow
from shared.clock import SystemClock
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.messaging.bus import publish
from shared.messaging.topics import TRAINING_BATCHES
from shared.service.consume import consume
from tests.registry.pages.demo_data import DemoRegistry
from tests.support.registry_events import DatabaseFixture
from tests.support.runtime import runtime_of


async def test_batch_is_stored_once_as_published(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    demo = DemoRegistry(registry_db, tmp_path)
    event = await demo.announce(3)
    await demo.say(TRAINING_BATCHES, event)
    (row,) = registry_db.run(lambda session: session.scalars(select(BatchRow)).all())
    assert (row.batch_id, row.model, row.number, row.manifest_uri) == (
        event.batch_id,
        "support",
        3,
        event.manifest.uri,
    )
    assert (row.counts["training"], row.offsets[0]["first"], row.closed_at) == (
        5,
        27,
        event.occurred_at,
    )


@pytest.mark.kafka
async def test_batch_from_a_real_broker_is_stored(
    registry_db: DatabaseFixture, tmp_path: Path, broker: str
) -> None:
    demo = DemoRegistry(registry_db, tmp_path)
    event = (await demo.announce(0)).model_copy(update={"batch_id": f"on a broker {tmp_path.name}"})
    producer, clock = KafkaProducer(broker), SystemClock()
    consumer = KafkaConsumer(broker, f"announcements {tmp_path.name}", (TRAINING_BATCHES,))
    await producer.start()
    await consumer.start()
    # Records of other tests are of undeclared models; their dead letters are never read.
    following = asyncio.create_task(
        consume(
            consumer.records(),
            demo.registry.handle,
            consumer.commit,
            demo.bus,
            runtime_of(clock=clock, metrics=demo.metrics, health=demo.health),
        )
    )
    try:
        await publish(producer, TRAINING_BATCHES, "support", event, "test")
        async with asyncio.timeout(30):
            while not registry_db.run(lambda session: session.get(BatchRow, event.batch_id)):
                await asyncio.sleep(0.1)
    finally:
        consumer.stop_after_current()
        await following
        await consumer.stop()
        await producer.stop()
