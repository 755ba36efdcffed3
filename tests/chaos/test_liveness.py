"""Liveness fails on a stall and readiness while recovering; an honest recovery and an empty log are
no stall.
"""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.chaos.world import World

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(180)]

STALLED = 5


@pytest.fixture(autouse=True)
async def nobody(world: World) -> None:
    """No dataset service; one of feedback."""
    for worker in world.of("dataset"):
        world.stop(worker)
    if not world.of("feedback"):
        world.launch("feedback")


async def test_a_stalled_worker_with_pending_events_is_not_live(world: World) -> None:
    worker = await world.start(
        "dataset", "dataset.entry_sent=stall:16", RATCHET_STALLED_SECONDS=str(STALLED)
    )
    await world.settle()
    await asyncio.sleep(STALLED + 4)
    if "FAILPOINT reached" not in worker.log:
        assert worker.is_ready(), "nothing waits, and still it counts as a stall"
        await world.send(20)
    await worker.wait_until(lambda: not worker.is_live(), "found out", STALLED + 8)
    assert not worker.is_ready()
    await worker.wait_until(worker.is_ready, "going on")
    await world.nothing_lost_or_doubled(once_more=False)


async def test_a_recovering_worker_is_live_within_its_own_limit(world: World) -> None:
    await world.start("dataset")
    await world.send(60)
    await world.settle()
    world.stop(*world.of("dataset"))
    worker = world.launch(
        "dataset",
        "dataset.recovering=stall:25",
        RATCHET_STALLED_SECONDS="5",
        RATCHET_RECOVERY_SECONDS="15",
    )
    await worker.wait_until(lambda: "FAILPOINT reached" in worker.log, "recovering")
    await asyncio.sleep(STALLED + 3)
    assert worker.is_live(), "a recovery counts as a stall"
    assert not worker.is_ready()
    await worker.wait_until(lambda: not worker.is_live(), "found out", 15)
    await worker.wait_until(worker.is_ready, "recovered")


async def test_a_worker_recovering_after_a_rebalance_is_not_ready(world: World) -> None:
    """Its first recovery comes by the place four times, once for each shard."""
    worker = await world.start("dataset", "dataset.recovering=stall:6@5")
    second = world.launch("dataset")
    await worker.wait_until(lambda: "FAILPOINT reached" in worker.log, "recovering")
    assert not worker.is_ready()
    assert worker.is_live()
    await worker.wait_until(worker.is_ready, "recovered")
    world.stop(second)


async def test_a_transaction_marker_is_no_pending_record(world: World) -> None:
    """It takes an offset behind the last event, which nothing ever commits."""
    for worker in world.of("feedback"):
        world.stop(worker)
    application = AIOKafkaProducer(
        bootstrap_servers=world.broker.bootstrap_servers, transactional_id="an application"
    )
    async with application, application.transaction():
        await application.send(FEEDBACK_RECEIVED, b"{}", key=b"in a transaction")
    worker = await world.start("feedback", RATCHET_STALLED_SECONDS=str(STALLED))
    await asyncio.sleep(STALLED + 6)
    assert worker.is_live(), "it waits for what is no event"
    world.launch("dataset")
    await world.send(60)
    await world.nothing_lost_or_doubled()
