"""Queue of batches whose training window is closed; the batches behind them are handled meanwhile.

A queued batch is not committed, and neither is any later record of its partition. The next owner
of the partition therefore receives all of them again, and recognises finished runs by their ids. So
losing this in-memory queue loses no batch, and queued batches never expire.

The queue sits in front of `shared.service.consume`, which commits through it: that loop commits
each record after its effect, and only the queue knows which earlier records still wait.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from shared.messaging.bus import Record
from shared.service.runtime import Runtime

POLL_SECONDS = 1.0
"""Maximum delay between the opening of a window and the start of a batch."""

Partition = tuple[str, int]


class WindowQueue:
    """Delays records until their window opens.

    `opens_at` returns the time at which a record may be handled, None for now. `owns` is true while
    the record's partition belongs to this consumer.
    """

    def __init__(
        self,
        opens_at: Callable[[Record], datetime | None],
        owns: Callable[[Record], bool],
        commit: Callable[[Record], Awaitable[None]],
        runtime: Runtime,
    ) -> None:
        self._opens_at = opens_at
        self._owns = owns
        self._commit = commit
        self._runtime = runtime
        self._waiting: dict[tuple[Partition, int], tuple[Record, datetime]] = {}
        self._handled: dict[Partition, Record] = {}

    async def ready_records(
        self, records: AsyncGenerator[Record, None], poll_seconds: float = POLL_SECONDS
    ) -> AsyncGenerator[Record, None]:
        """Yield records that may be handled now: queued ones whose window has opened, the earliest
        first, then new ones.

        Fetches from `records` also while every record waits, so that the consumer keeps polling.
        """
        fetching: asyncio.Task[Record] | None = None
        try:
            while True:
                while due := self._next_due():
                    yield due
                fetching = fetching or asyncio.ensure_future(anext(records))
                await asyncio.wait([fetching], timeout=poll_seconds)
                # Queued records whose window opened meanwhile come first.
                if not fetching.done() or self._any_due():
                    continue
                try:
                    record = fetching.result()
                except StopAsyncIteration:
                    return
                finally:
                    fetching = None
                if (opens_at := self._opens_at(record)) is None:
                    yield record
                else:
                    self._enqueue(record, opens_at)
        finally:
            if fetching is not None:
                fetching.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await fetching

    async def commit(self, record: Record) -> None:
        """Commit the partition of `record` up to its first queued record."""
        partition = _partition(record)
        newest = self._handled.get(partition, record)
        self._handled[partition] = newest = max(newest, record, key=lambda each: each.offset)
        queued = [offset for where, offset in self._waiting if where == partition]
        if not queued:
            await self._commit(newest)
        elif record.offset < min(queued):
            await self._commit(replace(record, offset=min(queued) - 1))

    def _enqueue(self, record: Record, opens_at: datetime) -> None:
        self._waiting[_partition(record), record.offset] = (record, opens_at)
        self._runtime.log.info(
            "waiting for the training window",
            topic=record.topic,
            offset=record.offset,
            until=opens_at.isoformat(),
        )
        self._update_metrics()

    def _next_due(self) -> Record | None:
        """Remove and return the earliest record whose window is open. Records of lost partitions
        are dropped: their new owner handles them.
        """
        for key, (record, opens_at) in sorted(self._waiting.items(), key=lambda item: item[0]):
            if not self._owns(record):
                del self._waiting[key]
                self._handled.pop(key[0], None)
            elif opens_at <= self._runtime.clock.now():
                del self._waiting[key]
                if (reopens_at := self._opens_at(record)) is None:
                    self._update_metrics()
                    return record
                # The previous run lasted until after the window had closed.
                self._enqueue(record, reopens_at)
        self._update_metrics()
        return None

    def _any_due(self) -> bool:
        now = self._runtime.clock.now()
        return any(opens_at <= now for _, opens_at in self._waiting.values())

    def _update_metrics(self) -> None:
        metrics = self._runtime.metrics
        metrics.set("ratchet_training_batches_waiting", len(self._waiting))
        next_opening = min(
            (opens_at.timestamp() for _, opens_at in self._waiting.values()), default=0.0
        )
        metrics.set("ratchet_training_window_opens_seconds", next_opening)


def _partition(record: Record) -> Partition:
    return record.topic, record.partition
