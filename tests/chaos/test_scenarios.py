"""Further fault scenarios on a real broker and under load: after each, every event is used exactly
once.
"""

import asyncio
import resource
import signal
from contextlib import aclosing

import pytest

from shared.failpoints import Service
from shared.messaging.topics import DATASET_ENTRIES
from shared.storage.dataset_entries import DatasetEntry, TableState
from tests.chaos.harness import ChaosHarness
from tests.chaos.load import MODEL_FILE
from tests.support.service_process import Headers, read, send

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(240)]

SERVICES: tuple[Service, ...] = ("feedback", "dataset")
SUSPEND_SECONDS = 14
"""More than twice the session timeout."""


@pytest.fixture(autouse=True)
async def fresh(harness: ChaosHarness) -> None:
    """Run one new worker of each service."""
    for worker in list(harness.workers):
        harness.stop(worker)
    for service in SERVICES:
        harness.launch(service)


async def test_sigterm_under_load(harness: ChaosHarness) -> None:
    sending = asyncio.create_task(harness.send(300, seconds=6))
    for _ in range(2):
        await asyncio.sleep(4)
        for worker in list(harness.workers):
            await worker.wait_until(worker.is_ready, "ready")
            harness.stop(worker)
        for service in SERVICES:
            harness.launch(service)
    await sending
    await harness.assert_exactly_once()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_worker_suspended_beyond_its_session_timeout(
    harness: ChaosHarness, service: Service
) -> None:
    (suspended,) = harness.workers_of(service)
    await suspended.wait_until(suspended.is_ready, "ready")
    sending = asyncio.create_task(harness.send(400, seconds=4))
    await asyncio.sleep(2)
    assert suspended.process is not None
    suspended.process.send_signal(signal.SIGSTOP)
    harness.launch(service)
    await asyncio.sleep(SUSPEND_SECONDS)
    suspended.process.send_signal(signal.SIGCONT)
    await sending
    await harness.send(100, seconds=3)
    await harness.assert_exactly_once()


@pytest.mark.parametrize(("point", "time"), [("dataset.decided", 25), ("dataset.announced", 3)])
async def test_a_worker_suspended_at_a_failpoint_with_unsent_data(
    harness: ChaosHarness, point: str, time: int
) -> None:
    (worker,) = harness.workers_of("dataset")
    await worker.wait_until(worker.is_ready, "ready")
    harness.stop(worker)
    await harness.send(150)
    suspended = harness.launch("dataset", f"{point}=pause:{SUSPEND_SECONDS}@{time}")
    await suspended.wait_until(lambda: "FAILPOINT reached" in suspended.log, "suspended")
    harness.launch("dataset")
    await asyncio.sleep(SUSPEND_SECONDS + 2)
    await harness.assert_exactly_once()


async def test_stale_entries_overwrite_the_newest_batches(harness: ChaosHarness) -> None:
    """The state after a zombie resumes, flushes its buffered writes, and dies before the end of a
    batch.
    """
    await harness.send(100)
    await harness.settle()
    for worker in harness.workers_of("dataset"):
        harness.stop(worker)
    first: dict[bytes, bytes] = {}
    last: dict[bytes, bytes] = {}
    async with aclosing(
        read(harness.broker.bootstrap_servers, DATASET_ENTRIES, seconds=2)
    ) as changes:
        async for change in changes:
            assert change.key is not None
            assert change.value is not None
            first.setdefault(change.key, change.value)
            last[change.key] = change.value
    members = [entry for entry in TableState.from_records(last.items()).entries if entry.batch]
    newest = {
        shard: max(entry.batch.number for entry in members if entry.shard == shard and entry.batch)
        for shard in range(4)
    }
    older = [
        entry for entry in members if entry.batch and entry.batch.number >= newest[entry.shard] - 1
    ]
    assert len(older) >= 2 * 4 * 5
    await write_entries(harness, [(entry, first[entry.key.encode()]) for entry in older])
    harness.launch("dataset")
    await harness.assert_exactly_once()


async def write_entries(harness: ChaosHarness, values: list[tuple[DatasetEntry, bytes]]) -> None:
    no_headers: Headers = []
    for partition in range(4):
        records = [
            (entry.key.encode(), value, no_headers)
            for entry, value in values
            if entry.source.partition == partition
        ]
        await send(harness.broker.bootstrap_servers, DATASET_ENTRIES, records, partition)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_second_worker_joins_and_leaves_under_load(
    harness: ChaosHarness, service: Service
) -> None:
    sending = asyncio.create_task(harness.send(400, seconds=15))
    for leave in (harness.stop, harness.kill):
        second = await harness.start(service)
        await asyncio.sleep(1)
        leave(second)
    await sending
    await harness.assert_exactly_once()


async def test_a_broker_restart_under_load(harness: ChaosHarness) -> None:
    for worker in harness.workers:
        await worker.wait_until(worker.is_ready, "ready")
    sending = asyncio.create_task(harness.send(400, seconds=10))
    await asyncio.sleep(3)
    await asyncio.to_thread(harness.broker.stop)
    await asyncio.sleep(2)
    await asyncio.to_thread(harness.broker.start)
    await sending
    await harness.assert_exactly_once()


async def test_a_full_object_store(harness: ChaosHarness) -> None:
    """Files are limited to a few bytes, as on a full disk: a data file is truncated."""
    (idle,) = harness.workers_of("dataset")
    harness.stop(idle)
    writer = await harness.start("dataset", RATCHET_DATASET_RETRIES="3")
    assert writer.process is not None
    resource.prlimit(writer.process.pid, resource.RLIMIT_FSIZE, (300, 300))
    await harness.send(100)
    assert await harness.wait_for_exit(writer) == 1
    reconciliation = await harness.reconciled()
    assert not reconciliation.duplicated
    harness.launch("dataset")
    await harness.assert_exactly_once()


async def test_a_model_file_change_while_a_worker_is_down(harness: ChaosHarness) -> None:
    """The batch announced before stays unchanged; the next ones close earlier."""
    (idle,) = harness.workers_of("dataset")
    harness.stop(idle)
    doomed = harness.launch("dataset", "dataset.announced=kill@2")
    await harness.send(100)
    assert await harness.wait_for_exit(doomed) == -signal.SIGKILL
    previous = harness.replace_model_file(MODEL_FILE.replace("batch_size: 5", "batch_size: 3"))
    try:
        harness.launch("dataset")
        await harness.assert_exactly_once()
    finally:
        harness.replace_model_file(previous)


async def test_duplicates_are_used_once(harness: ChaosHarness) -> None:
    await harness.send(100)
    reconciliation = await harness.assert_exactly_once()
    assert sum(outcome.reason == "duplicate" for outcome in reconciliation.outcomes.values()) > 5
