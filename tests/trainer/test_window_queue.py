"""Queue of batches whose window is closed: batches behind them are handled, no offset is committed
past them, and none is lost.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.trainer.window_queue import WindowQueue
from shared.clock import ManualClock
from shared.config.training_window import TrainingWindow
from shared.messaging.bus import Record
from shared.observability.metrics import Metrics
from tests.support.runtime import runtime_of

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NIGHT = TrainingWindow(opens="02:00", closes="06:00")


def record(offset: int, key: bytes = b"day", partition: int = 0) -> Record:
    return Record("training.batches", partition, offset, key, b"")


@dataclass
class Partition:
    """A partition in which records with the key `night` have a window. A second `run` starts at the
    committed offset.
    """

    log: list[Record]
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    metrics: Metrics = field(default_factory=lambda: Metrics("trainer"))
    committed: int = 0
    is_owned: bool = True
    handled: list[int] = field(default_factory=list)

    async def records(self) -> AsyncGenerator[Record, None]:
        offset = self.committed
        while True:
            while offset < len(self.log):
                offset += 1
                yield self.log[offset - 1]
            await asyncio.sleep(0.001)

    async def commit(self, record: Record) -> None:
        assert record.offset + 1 >= self.committed, "a committed offset never decreases"
        self.committed = record.offset + 1

    def opens_at(self, record: Record) -> datetime | None:
        if record.key != b"night" or NIGHT.is_open(self.clock.now()):
            return None
        return NIGHT.next_open(self.clock.now())

    async def run(self, seconds: float = 0.05) -> None:
        """Handle ready records for some seconds."""
        queue = WindowQueue(
            self.opens_at,
            lambda _: self.is_owned,
            self.commit,
            runtime_of("trainer", self.clock, self.metrics),
        )

        async def handle() -> None:
            async with (
                aclosing(self.records()) as records,
                aclosing(queue.ready_records(records, 0.002)) as ready,
            ):
                async for each in ready:
                    self.handled.append(each.offset)
                    await queue.commit(each)

        task = asyncio.create_task(handle())
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def gauge(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


async def test_later_records_are_handled_but_not_committed() -> None:
    """Records 1 and 3 have a night window. At noon 0, 2 and 4 are handled; 1 is the first that is
    not committed.
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
    ), "02:00"


async def test_queued_records_are_handled_when_the_window_opens() -> None:
    """14 hours after noon, at 02:00, queued records are handled in order and all is committed."""
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


async def test_restart_receives_all_records_from_the_queued_one() -> None:
    partition = Partition([record(0), record(1, b"night"), record(2)])
    await partition.run()
    partition.handled.clear()
    await partition.run()
    assert partition.handled == [2]
    partition.clock.advance(14 * 3600)
    partition.handled.clear()
    await partition.run()
    assert (partition.handled, partition.committed) == ([1, 2], 3)


async def test_queued_record_of_a_lost_partition_is_not_handled() -> None:
    partition = Partition([record(0, b"night")])
    running = asyncio.create_task(partition.run(0.1))
    await asyncio.sleep(0.03)
    partition.is_owned = False
    partition.clock.advance(14 * 3600)
    await running
    assert (partition.handled, partition.committed) == ([], 0)
