"""Batches that wait for their window: those behind them go on, nothing is committed past them, and
nothing is lost.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from services.trainer.window_queue import WindowQueue
from shared.clock import ManualClock
from shared.config.training_window import TrainingWindow
from shared.messaging.bus import Record
from shared.observability.metrics import Metrics

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NIGHT = TrainingWindow(opens="02:00", closes="06:00")


def record(offset: int, key: bytes = b"day", partition: int = 0) -> Record:
    return Record("training.batches", partition, offset, key, b"")


@dataclass
class Partition:
    """Records with the key `night` have a window. What is committed is seen no more after a
    `restart`.
    """

    log: list[Record]
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    metrics: Metrics = field(default_factory=lambda: Metrics("trainer"))
    committed: int = 0
    is_owned: bool = True
    handled: list[int] = field(default_factory=list)

    async def records(self) -> AsyncGenerator[Record, None]:
        given = self.committed
        while True:
            while given < len(self.log):
                given += 1
                yield self.log[given - 1]
            await asyncio.sleep(0.001)

    async def commit(self, record: Record) -> None:
        assert record.offset + 1 >= self.committed, "what was committed is never taken back"
        self.committed = record.offset + 1

    def opens_at(self, record: Record) -> datetime | None:
        if record.key != b"night" or NIGHT.is_open(self.clock.now()):
            return None
        return NIGHT.next_open(self.clock.now())

    async def run(self, seconds: float = 0.05) -> None:
        """A trainer that handles what it is given until it is stopped."""
        waiting = WindowQueue(
            self.opens_at,
            lambda _: self.is_owned,
            self.commit,
            self.clock,
            self.metrics,
            structlog.stdlib.get_logger(),
        )

        async def handle() -> None:
            async with (
                aclosing(self.records()) as records,
                aclosing(waiting.ready_records(records, 0.002)) as ready,
            ):
                async for each in ready:
                    self.handled.append(each.offset)
                    await waiting.commit(each)

        task = asyncio.create_task(handle())
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def gauge(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


async def test_those_behind_go_on_and_nothing_is_committed_past_one_that_waits() -> None:
    """The log: 0 by day, 1 by night, 2 by day, 3 by night, 4 by day. At noon 0, 2 and 4 run; 1 is
    the first that is not committed.
    """
    partition = Partition(
        [record(0), record(1, b"night"), record(2), record(3, b"night"), record(4)]
    )
    await partition.run()
    assert partition.handled == [0, 2, 4]
    assert partition.committed == 1
    assert partition.gauge("ratchet_training_batches_waiting") == 2
    assert (
        partition.gauge("ratchet_training_window_opens_seconds")
        == (NOON + timedelta(hours=14)).timestamp()
    ), "2 in the morning"


async def test_the_window_opens_while_it_waits() -> None:
    """14 hours after noon it is 2 in the morning: those that waited run in their order, and all is
    committed.
    """
    partition = Partition(
        [record(0), record(1, b"night"), record(2), record(3, b"night"), record(4)]
    )
    running = asyncio.create_task(partition.run(0.2))
    await asyncio.sleep(0.05)
    assert partition.handled == [0, 2, 4]
    partition.clock.advance(14 * 3600)
    await running
    assert partition.handled == [0, 2, 4, 1, 3]
    assert partition.committed == 5
    assert partition.gauge("ratchet_training_batches_waiting") == 0
    assert partition.gauge("ratchet_training_window_opens_seconds") == 0


async def test_a_trainer_that_starts_anew_sees_all_again_from_the_one_that_waits() -> None:
    partition = Partition([record(0), record(1, b"night"), record(2)])
    await partition.run()
    partition.handled.clear()
    await partition.run()
    assert partition.handled == [2]
    partition.clock.advance(14 * 3600)
    partition.handled.clear()
    await partition.run()
    assert (partition.handled, partition.committed) == ([1, 2], 3)


async def test_what_waits_in_a_partition_that_has_gone_to_another_is_not_run() -> None:
    partition = Partition([record(0, b"night")])
    running = asyncio.create_task(partition.run(0.1))
    await asyncio.sleep(0.03)
    partition.is_owned = False
    partition.clock.advance(14 * 3600)
    await running
    assert (partition.handled, partition.committed) == ([], 0)
