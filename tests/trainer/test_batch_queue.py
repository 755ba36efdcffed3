"""Queue of batches that may not be trained yet: batches behind them are handled, no offset is
committed past them, and none is lost.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.trainer.batch_queue import BatchQueue, ResumedBatch, Wait
from shared.clock import ManualClock
from shared.config.training_window import TrainingWindow
from shared.errors import BusUnavailable
from shared.messaging.bus import Record
from shared.observability.metrics import Metrics
from shared.service.retry import RetryPolicy
from tests.support.runtime import runtime_of

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NIGHT = TrainingWindow(opens="02:00", closes="06:00")


def record(offset: int, key: bytes = b"day", partition: int = 0) -> Record:
    return Record("training.batches", partition, offset, key, b"")


@dataclass
class Partition:
    """A partition in which records with the key `night` have a window, and those with a key in
    `paused` wait until a `refresh` has read that they no longer do. A second `run` starts at the
    committed offset.
    """

    log: list[Record]
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    metrics: Metrics = field(default_factory=lambda: Metrics("trainer"))
    committed: int = 0
    is_owned: bool = True
    handled: list[int] = field(default_factory=list)
    paused: frozenset[bytes] = frozenset()
    seen_paused: frozenset[bytes] = frozenset()
    unavailable: int = 0
    resumed: list[ResumedBatch] = field(default_factory=list)

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

    async def refresh(self) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise BusUnavailable("no broker")
        self.seen_paused = self.paused

    def wait_of(self, record: Record) -> Wait | None:
        if record.key in self.seen_paused:
            return Wait("training paused")
        if record.key != b"night" or NIGHT.is_open(self.clock.now()):
            return None
        return Wait("training window closed", NIGHT.next_open(self.clock.now()))

    async def run(self, seconds: float = 0.4) -> None:
        """Handle ready records for some seconds."""
        queue = BatchQueue(
            self.wait_of,
            self.refresh,
            lambda _: self.is_owned,
            self.commit,
            runtime_of("trainer", self.clock, self.metrics),
            RetryPolicy(seconds=0.005),
            resumed=lambda: self.resumed,
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
    running = asyncio.create_task(partition.run(1.0))
    await asyncio.sleep(0.4)
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
    running = asyncio.create_task(partition.run(0.6))
    await asyncio.sleep(0.3)
    partition.is_owned = False
    partition.clock.advance(14 * 3600)
    await running
    assert (partition.handled, partition.committed) == ([], 0)


async def test_paused_batches_wait_and_are_handled_in_order() -> None:
    """Records 0 and 2 are of a paused model. Record 1 is handled meanwhile; nothing is committed
    past record 0.
    """
    partition = Partition(
        [record(0, b"support"), record(1), record(2, b"support")], paused=frozenset({b"support"})
    )
    running = asyncio.create_task(partition.run(1.0))
    await asyncio.sleep(0.4)
    assert (partition.handled, partition.committed) == ([1], 0)
    assert partition.gauge("ratchet_training_batches_waiting") == 2
    assert partition.gauge("ratchet_training_window_opens_seconds") == 0
    partition.log.append(record(3, b"support"))
    partition.paused = frozenset()
    await running
    assert (partition.handled, partition.committed) == ([1, 0, 2, 3], 4)
    assert partition.gauge("ratchet_training_batches_waiting") == 0


async def test_batches_stay_paused_through_a_restart() -> None:
    partition = Partition([record(0, b"support"), record(1)], paused=frozenset({b"support"}))
    await partition.run()
    partition.handled.clear()
    partition.seen_paused = frozenset()
    await partition.run()
    assert (partition.handled, partition.committed) == ([1], 0)
    partition.paused = frozenset()
    partition.handled.clear()
    await partition.run()
    assert (partition.handled, partition.committed) == ([0, 1], 2)


async def test_a_record_waits_for_the_state_to_be_readable() -> None:
    """No record is handled before the state is read."""
    partition = Partition([record(0)], paused=frozenset({b"day"}), unavailable=1)
    await partition.run()
    assert (partition.handled, partition.seen_paused) == ([], frozenset({b"day"}))


async def test_resumed_batch_is_handled_and_moves_no_offset() -> None:
    """Batch 1 was committed long ago. It waits for its window, then is handled once for each
    resumption, whether its run ends or not; `commit` checks that no offset decreases.
    """
    partition = Partition([record(0), record(1, b"night"), record(2), record(3)])
    partition.committed = 3
    partition.resumed = [ResumedBatch(partition.log[1], 2)]
    await partition.run()
    assert (partition.handled, partition.committed) == ([3], 4)
    partition.clock.advance(14 * 3600)
    await partition.run()
    assert (partition.handled, partition.committed) == ([3, 1], 4)


async def test_each_resumption_is_handled_once() -> None:
    """The state lists a resumed run until it has ended; in the dead letters it never does."""
    partition = Partition([record(0), record(1)], committed=2)
    partition.resumed = [ResumedBatch(partition.log[0], 2)]
    running = asyncio.create_task(partition.run(0.6))
    await asyncio.sleep(0.2)
    assert partition.handled == [0]
    partition.resumed = [ResumedBatch(partition.log[0], 4)]
    await running
    assert partition.handled == [0, 0]


async def test_resumed_batch_of_another_owner_is_left_to_it() -> None:
    partition = Partition([record(0)], committed=1, is_owned=False)
    partition.resumed = [ResumedBatch(partition.log[0], 2)]
    await partition.run()
    assert partition.handled == []
