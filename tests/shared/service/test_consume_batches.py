"""Consumption in batches: each batch is handled, retried, and committed after its effect."""

from collections.abc import AsyncIterator, Sequence

import pytest

from shared.errors import StorageUnavailable
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.topics import FEEDBACK_SCORED
from shared.service.consume import consume_batches
from shared.service.retry import RetryPolicy
from tests.support.runtime import runtime_of


class BatchHandler:
    """Remembers the values of each batch; fails as often as configured."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[list[bytes | None]] = []

    async def handle(self, records: Sequence[Record]) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("the store is unavailable")
        self.batches.append([record.value for record in records])


async def _run(handler: BatchHandler, attempts: int = 3) -> MemoryBus:
    bus = MemoryBus()
    for value in (b"a", b"b", b"c"):
        await bus.send(FEEDBACK_SCORED, b"key", value, [])
    records = bus.topics[FEEDBACK_SCORED]

    async def batches() -> AsyncIterator[Sequence[Record]]:
        yield records[:2]
        yield records[2:]

    try:
        await consume_batches(
            batches(), handler.handle, bus.commit, runtime_of(), RetryPolicy(attempts, seconds=0)
        )
    except StorageUnavailable:
        assert bus.committed == {}
        raise
    return bus


async def test_batches_are_handled_in_order_and_committed() -> None:
    handler = BatchHandler()
    bus = await _run(handler)
    assert handler.batches == [[b"a", b"b"], [b"c"]]
    assert bus.committed == {FEEDBACK_SCORED: 3}


async def test_a_failed_batch_is_retried_as_a_whole() -> None:
    handler = BatchHandler(failures=2)
    await _run(handler)
    assert handler.batches == [[b"a", b"b"], [b"c"]]


async def test_the_last_failure_leaves_the_loop_without_a_commit() -> None:
    with pytest.raises(StorageUnavailable):
        await _run(BatchHandler(failures=3))
