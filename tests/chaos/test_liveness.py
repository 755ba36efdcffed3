"""Liveness fails on a stall, readiness fails during recovery. A recovery in progress and an empty
log are no stall.
"""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.chaos.harness import ChaosHarness

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(180)]

STALLED = 5


@pytest.fixture(autouse=True)
async def feedback_only(harness: ChaosHarness) -> None:
    """Run one feedback worker and no dataset worker."""
    for worker in harness.workers_of("dataset"):
        harness.stop(worker)
    if not harness.workers_of("feedback"):
        harness.launch("feedback")


async def test_a_stalled_worker_with_pending_events_is_not_live(harness: ChaosHarness) -> None:
    worker = await harness.start(
        "dataset", "dataset.entry_sent=stall:16", RATCHET_STALLED_SECONDS=str(STALLED)
    )
    await harness.settle()
    await asyncio.sleep(STALLED + 4)
    if "FAILPOINT reached" not in worker.log:
        assert worker.is_ready(), "no pending records, but reported as a stall"
        await harness.send(20)
    await worker.wait_until(lambda: not worker.is_live(), "not live", STALLED + 8)
    assert not worker.is_ready()
    await worker.wait_until(worker.is_ready, "ready again")
    await harness.assert_exactly_once(recover=False)


async def test_a_recovering_worker_is_live_within_its_own_limit(harness: ChaosHarness) -> None:
    await harness.start("dataset")
    await harness.send(60)
    await harness.settle()
    harness.stop(*harness.workers_of("dataset"))
    worker = harness.launch(
        "dataset",
        "dataset.recovering=stall:25",
        RATCHET_STALLED_SECONDS="5",
        RATCHET_RECOVERY_SECONDS="15",
    )
    await worker.wait_until(lambda: "FAILPOINT reached" in worker.log, "recovering")
    await asyncio.sleep(STALLED + 3)
    assert worker.is_live(), "a recovery is reported as a stall"
    assert not worker.is_ready()
    await worker.wait_until(lambda: not worker.is_live(), "not live", 15)
    await worker.wait_until(worker.is_ready, "recovered")


async def test_a_worker_recovering_after_a_rebalance_is_not_ready(harness: ChaosHarness) -> None:
    """Its first recovery passes the failpoint four times, once per shard."""
    worker = await harness.start("dataset", "dataset.recovering=stall:6@5")
    second = harness.launch("dataset")
    await worker.wait_until(lambda: "FAILPOINT reached" in worker.log, "recovering")
    assert not worker.is_ready()
    assert worker.is_live()
    await worker.wait_until(worker.is_ready, "recovered")
    harness.stop(second)


async def test_a_transaction_marker_is_no_pending_record(harness: ChaosHarness) -> None:
    """It occupies the offset after the last event, which is never committed."""
    for worker in harness.workers_of("feedback"):
        harness.stop(worker)
    application = AIOKafkaProducer(
        bootstrap_servers=harness.broker.bootstrap_servers, transactional_id="an application"
    )
    async with application, application.transaction():
        await application.send(FEEDBACK_RECEIVED, b"{}", key=b"in a transaction")
    worker = await harness.start("feedback", RATCHET_STALLED_SECONDS=str(STALLED))
    await asyncio.sleep(STALLED + 6)
    assert worker.is_live(), "the transaction marker is reported as pending"
    harness.launch("dataset")
    await harness.send(60)
    await harness.assert_exactly_once()
