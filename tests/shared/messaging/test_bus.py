"""The loop that consumes: one suite on the in-memory twin, for what it promises about effects,
commits and dead letters.
"""

import asyncio
from datetime import UTC, datetime

import pytest
import structlog
from aiokafka import TopicPartition

from shared.clock import ManualClock
from shared.errors import ContractViolation, PartitionLost, StorageUnavailable
from shared.kafka.rebalance import RebalanceListener
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.consume import consume
from shared.messaging.topics import FEEDBACK_RECEIVED, dead_letter_topic
from shared.retry import RetryPolicy
from tests.support.runtime import runtime_of

LOG = structlog.stdlib.get_logger("ratchet.test")
CLOCK = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


async def feed(bus: MemoryBus, *values: bytes) -> None:
    for value in values:
        await bus.send(FEEDBACK_RECEIVED, b"key", value, [("ce_id", value)])


class Worker:
    """Handles records and remembers which; fails where it is told to."""

    def __init__(self, failures: dict[bytes, list[Exception]]) -> None:
        self.failures = failures
        self.handled: list[bytes | None] = []

    async def handle(self, record: Record) -> None:
        if record.value and self.failures.get(record.value):
            raise self.failures[record.value].pop(0)
        self.handled.append(record.value)


async def run(bus: MemoryBus, worker: Worker, attempts: int = 3) -> None:
    records = bus.records(FEEDBACK_RECEIVED)
    await consume(
        records,
        worker.handle,
        bus.commit,
        bus,
        runtime_of(),
        RetryPolicy(attempts, seconds=0),
    )


async def test_every_record_is_handled_in_order_and_committed() -> None:
    bus, worker = MemoryBus(), Worker({})
    await feed(bus, b"a", b"b", b"c")
    await run(bus, worker)
    assert worker.handled == [b"a", b"b", b"c"]
    assert bus.committed == {FEEDBACK_RECEIVED: 3}


async def test_what_cannot_be_processed_becomes_a_dead_letter_with_its_bytes_and_reason() -> None:
    bus, worker = MemoryBus(), Worker({b"b": [ContractViolation("is too long", "output")]})
    await feed(bus, b"a", b"b", b"c")
    await run(bus, worker)
    assert worker.handled == [b"a", b"c"]
    (dead,) = bus.topics[dead_letter_topic(FEEDBACK_RECEIVED)]
    headers = dict(dead.headers)
    assert (dead.key, dead.value, headers["ce_id"]) == (b"key", b"b", b"b")
    assert headers["ratchet_dlq_reason"] == b"is too long"
    assert headers["ratchet_dlq_field"] == b"output"
    assert headers["ratchet_dlq_offset"] == b"1"
    assert bus.committed == {FEEDBACK_RECEIVED: 3}


async def test_what_is_away_for_a_while_is_tried_again() -> None:
    bus, worker = (
        MemoryBus(),
        Worker({b"b": [StorageUnavailable("away"), StorageUnavailable("away")]}),
    )
    await feed(bus, b"a", b"b")
    await run(bus, worker)
    assert worker.handled == [b"a", b"b"]


async def test_what_stays_away_ends_the_loop_without_committing_it() -> None:
    bus, worker = MemoryBus(), Worker({b"b": [StorageUnavailable("away")] * 9})
    await feed(bus, b"a", b"b", b"c")
    with pytest.raises(StorageUnavailable):
        await run(bus, worker)
    assert worker.handled == [b"a"]
    assert bus.committed == {FEEDBACK_RECEIVED: 1}


async def test_an_error_that_nobody_foresaw_ends_the_loop_without_committing() -> None:
    bus, worker = MemoryBus(), Worker({b"a": [ZeroDivisionError()]})
    await feed(bus, b"a")
    with pytest.raises(ZeroDivisionError):
        await run(bus, worker)
    assert bus.committed == {}


async def test_a_dead_letter_that_cannot_be_written_ends_the_loop_without_committing() -> None:
    class Refusing(MemoryBus):
        async def send(
            self, topic: str, key: bytes | None, value: bytes | None, headers: object
        ) -> None:
            raise StorageUnavailable("the dead letters are full")

    bus, worker = MemoryBus(), Worker({b"a": [ContractViolation("no")]})
    await feed(bus, b"a")
    with pytest.raises(StorageUnavailable):
        await consume(
            bus.records(FEEDBACK_RECEIVED),
            worker.handle,
            bus.commit,
            Refusing(),
            runtime_of(),
            RetryPolicy(1, seconds=0),
        )
    assert bus.committed == {}


async def test_the_loop_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    bus = MemoryBus()
    await feed(bus, b"a")
    await run(bus, Worker({}))
    assert asyncio.all_tasks() == before


async def test_what_was_forgone_is_not_committed_and_the_next_record_is_handled() -> None:
    bus, worker = (
        MemoryBus(),
        Worker({b"a": [PartitionLost("another's")], b"b": [PartitionLost("another's")]}),
    )
    await feed(bus, b"a")
    await run(bus, worker)
    assert (worker.handled, bus.committed) == ([], {})
    await run(bus, worker)
    assert (worker.handled, bus.committed) == ([b"a"], {FEEDBACK_RECEIVED: 1})


async def test_a_member_learns_of_a_rebalance_before_its_partitions_go_and_when_it_is_over() -> (
    None
):
    """Not of the first assignment: nothing goes then."""
    said: list[str] = []

    class Member:
        async def before_revoke(self) -> None:
            said.append(f"leaving {listener.settled.is_set()}")

        async def after_assign(self) -> None:
            said.append(f"settled {listener.settled.is_set()}")

    listener, partition = RebalanceListener(Member()), TopicPartition(FEEDBACK_RECEIVED, 0)
    assert not listener.settled.is_set()
    await listener.on_partitions_revoked(set())
    await listener.on_partitions_assigned({partition})
    await listener.on_partitions_revoked({partition})
    await listener.on_partitions_assigned(set())
    assert said == ["settled True", "leaving False", "settled True"]
