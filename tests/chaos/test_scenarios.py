"""What else befalls services, on a real broker and under load: after each, everything is found
exactly once.
"""

import asyncio
import resource
import signal
from contextlib import aclosing

import pytest

from shared.failpoints import Service
from shared.messaging.topics import DATASET_ENTRIES
from shared.storage.dataset_entries import DatasetEntry, TableState
from tests.chaos.load import MODEL_FILE
from tests.chaos.world import World
from tests.dataset.running import Headers, read, send

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(240)]

SERVICES: tuple[Service, ...] = ("feedback", "dataset")
SLEEP = 14
"""Seconds: more than twice the session."""


@pytest.fixture(autouse=True)
async def fresh(world: World) -> None:
    """Both services, one worker each."""
    for worker in list(world.workers):
        world.stop(worker)
    for service in SERVICES:
        world.launch(service)


async def test_sigterm_under_load(world: World) -> None:
    sending = asyncio.create_task(world.send(300, seconds=6))
    for _ in range(2):
        await asyncio.sleep(4)
        for worker in list(world.workers):
            await worker.wait_until(worker.is_ready, "ready")
            world.stop(worker)
        for service in SERVICES:
            world.launch(service)
    await sending
    await world.nothing_lost_or_doubled()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_worker_suspended_beyond_its_session_timeout(
    world: World, service: Service
) -> None:
    (sleeper,) = world.of(service)
    await sleeper.wait_until(sleeper.is_ready, "ready")
    sending = asyncio.create_task(world.send(400, seconds=4))
    await asyncio.sleep(2)
    assert sleeper.process is not None
    sleeper.process.send_signal(signal.SIGSTOP)
    world.launch(service)
    await asyncio.sleep(SLEEP)
    sleeper.process.send_signal(signal.SIGCONT)
    await sending
    await world.send(100, seconds=3)
    await world.nothing_lost_or_doubled()


@pytest.mark.parametrize(("point", "time"), [("dataset.decided", 25), ("dataset.announced", 3)])
async def test_a_worker_suspended_at_a_failpoint_with_unsent_data(
    world: World, point: str, time: int
) -> None:
    (awake,) = world.of("dataset")
    await awake.wait_until(awake.is_ready, "ready")
    world.stop(awake)
    await world.send(150)
    sleeper = world.launch("dataset", f"{point}=pause:{SLEEP}@{time}")
    await sleeper.wait_until(lambda: "FAILPOINT reached" in sleeper.log, "asleep")
    world.launch("dataset")
    await asyncio.sleep(SLEEP + 2)
    await world.nothing_lost_or_doubled()


async def test_stale_entries_overwrite_the_newest_batches(world: World) -> None:
    """What is left when a worker wakes up, writes what it had at hand, and dies before it comes to
    the end of a batch.
    """
    await world.send(100)
    await world.settle()
    for worker in world.of("dataset"):
        world.stop(worker)
    first: dict[bytes, bytes] = {}
    last: dict[bytes, bytes] = {}
    async with aclosing(
        read(world.broker.bootstrap_servers, DATASET_ENTRIES, seconds=2)
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
    await write(world, [(entry, first[entry.key.encode()]) for entry in older])
    world.launch("dataset")
    await world.nothing_lost_or_doubled()


async def write(world: World, values: list[tuple[DatasetEntry, bytes]]) -> None:
    no_headers: Headers = []
    for partition in range(4):
        records = [
            (entry.key.encode(), value, no_headers)
            for entry, value in values
            if entry.source.partition == partition
        ]
        await send(world.broker.bootstrap_servers, DATASET_ENTRIES, records, partition)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_second_worker_joins_and_leaves_under_load(world: World, service: Service) -> None:
    sending = asyncio.create_task(world.send(400, seconds=15))
    for leave in (world.stop, world.kill):
        second = await world.start(service)
        await asyncio.sleep(1)
        leave(second)
    await sending
    await world.nothing_lost_or_doubled()


async def test_a_broker_restart_under_load(world: World) -> None:
    for worker in world.workers:
        await worker.wait_until(worker.is_ready, "ready")
    sending = asyncio.create_task(world.send(400, seconds=10))
    await asyncio.sleep(3)
    await asyncio.to_thread(world.broker.stop)
    await asyncio.sleep(2)
    await asyncio.to_thread(world.broker.start)
    await sending
    await world.nothing_lost_or_doubled()


async def test_a_full_object_store(world: World) -> None:
    """No file can grow beyond some bytes, as on a full disk: a data file is cut off in the middle."""
    (idle,) = world.of("dataset")
    world.stop(idle)
    writer = await world.start("dataset", RATCHET_DATASET_RETRIES="3")
    assert writer.process is not None
    resource.prlimit(writer.process.pid, resource.RLIMIT_FSIZE, (300, 300))
    await world.send(100)
    assert await world.died(writer) == 1
    found = await world.reconciled()
    assert not found.duplicated
    world.launch("dataset")
    await world.nothing_lost_or_doubled()


async def test_a_model_file_change_while_a_worker_is_down(world: World) -> None:
    """The batch that it had just announced stays what it was; the next ones close earlier."""
    (idle,) = world.of("dataset")
    world.stop(idle)
    dying = world.launch("dataset", "dataset.announced=kill@2")
    await world.send(100)
    assert await world.died(dying) == -signal.SIGKILL
    before = world.declare(MODEL_FILE.replace("batch_size: 5", "batch_size: 3"))
    try:
        world.launch("dataset")
        await world.nothing_lost_or_doubled()
    finally:
        world.declare(before)


async def test_duplicates_are_used_once(world: World) -> None:
    await world.send(100)
    found = await world.nothing_lost_or_doubled()
    assert sum(fate.reason == "duplicate" for fate in found.outcomes.values()) > 5
