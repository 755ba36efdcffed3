"""Queue of batches that may not be trained yet, because a training window is closed or training is
paused; the batches behind them are handled meanwhile. Batches of resumed runs join it again.

A queued batch is not committed, and neither is any later record of its partition. The next owner
of the partition therefore receives all of them again, and recognises finished runs by their ids. So
losing this in-memory queue loses no batch, and queued batches never expire. The batch of a resumed
run was committed when the run was cancelled: it holds back no offset, and a restart finds it by the
operator's decision.

The queue sits in front of `shared.service.consume`, which commits through it: that loop commits
each record after its effect, and only the queue knows which earlier records still wait.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from shared.errors import Unavailable
from shared.messaging.bus import Record
from shared.service.retry import RetryPolicy
from shared.service.runtime import Runtime

POLL_SECONDS = 1.0
"""Maximum delay between the end of a wait and the start of a batch."""

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason for which a batch may not be trained yet, and the end of the wait if it is known.
    Without an end, the batch is checked again with each poll.
    """

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ResumedBatch:
    """Record of a batch whose run was resumed. `number` grows with each resumption of the run."""

    record: Record
    number: int


@dataclass(frozen=True, slots=True)
class _Queued:
    """A queued record with its wait, None for a record that was not checked yet. `resumption` is
    the number of a `ResumedBatch`.
    """

    record: Record
    wait: Wait | None = None
    resumption: int | None = None


Key = tuple[Partition, int]
"""Partition and offset of a record."""


class BatchQueue:
    """Delays records until they may be handled.

    `wait_of` returns the wait of a record, None if it may be handled now; it answers from a state
    that `refresh` brings up to date, and so does `resumed`, which lists the batches of resumed runs
    that have not ended. `owns` is true while the record's partition belongs to this consumer.
    """

    def __init__(
        self,
        wait_of: Callable[[Record], Wait | None],
        refresh: Callable[[], Awaitable[None]],
        owns: Callable[[Record], bool],
        commit: Callable[[Record], Awaitable[None]],
        runtime: Runtime,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        resumed: Callable[[], Iterable[ResumedBatch]] = tuple,
    ) -> None:
        self._wait_of = wait_of
        self._refresh = refresh
        self._owns = owns
        self._commit = commit
        self._runtime = runtime
        self._retry = retry
        self._resumed = resumed
        self._queued: dict[Key, _Queued] = {}
        self._resuming: ResumedBatch | None = None
        self._resumptions_handled: dict[Key, int] = {}
        self._handled: dict[Partition, Record] = {}

    async def ready_records(
        self, records: AsyncGenerator[Record, None], poll_seconds: float = POLL_SECONDS
    ) -> AsyncGenerator[Record, None]:
        """Yield records that may be handled now, the earliest of a partition first.

        Fetches from `records` also while every record waits, so that the consumer keeps polling.
        Raises Unavailable if the state stays unavailable.
        """
        fetching: asyncio.Task[Record] | None = None
        try:
            while True:
                while ready := await self._next_ready():
                    yield ready
                fetching = fetching or asyncio.ensure_future(anext(records))
                await asyncio.wait([fetching], timeout=poll_seconds)
                if not fetching.done():
                    continue
                try:
                    record = fetching.result()
                except StopAsyncIteration:
                    return
                finally:
                    fetching = None
                self._queued[_key(record)] = _Queued(record)
        finally:
            if fetching is not None:
                fetching.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await fetching

    async def commit(self, record: Record) -> None:
        """Commit the partition of `record` up to its first queued record."""
        if self._resuming is not None:
            self._resumptions_handled[_key(record)] = self._resuming.number
            return
        partition = _partition(record)
        newest = self._handled.get(partition, record)
        self._handled[partition] = newest = max(newest, record, key=lambda each: each.offset)
        queued = [
            offset
            for (where, offset), waiting in self._queued.items()
            if where == partition and waiting.resumption is None
        ]
        if not queued:
            await self._commit(newest)
        elif record.offset < min(queued):
            await self._commit(replace(record, offset=min(queued) - 1))

    async def _next_ready(self) -> Record | None:
        """Remove and return the earliest record that may be handled. Records of lost partitions
        are dropped: their new owner handles them.
        """
        await self._bring_up_to_date()
        ready = self._resuming = None
        for key, queued in sorted(self._queued.items(), key=lambda item: item[0]):
            if not self._owns(queued.record):
                del self._queued[key]
                self._handled.pop(key[0], None)
            elif self._is_due(queued):
                wait = self._wait_of(queued.record)
                if wait is None:
                    del self._queued[key]
                    ready = queued.record
                    if queued.resumption is not None:
                        self._resuming = ResumedBatch(ready, queued.resumption)
                    break
                # Also when the previous run lasted until after the window had closed.
                self._keep_waiting(key, queued, wait)
        self._update_metrics()
        return ready

    async def _bring_up_to_date(self) -> None:
        """Refresh, then queue the batches of newly resumed runs. Each resumption is handled once,
        even if it ends in the dead letters. While no record waits, an unavailable broker is no
        reason to stop.
        """
        if any(self._is_due(queued) for queued in self._queued.values()):
            await self._retry.call(self._refresh, self._runtime.log)
        else:
            with suppress(Unavailable):
                await self._refresh()
        for batch in self._resumed():
            key = _key(batch.record)
            is_new = batch.number > self._resumptions_handled.get(key, 0)
            if is_new and key not in self._queued and self._owns(batch.record):
                self._queued[key] = _Queued(batch.record, resumption=batch.number)

    def _is_due(self, queued: _Queued) -> bool:
        until = queued.wait.until if queued.wait else None
        return until is None or until <= self._runtime.clock.now()

    def _keep_waiting(self, key: tuple[Partition, int], queued: _Queued, wait: Wait) -> None:
        if wait == queued.wait:
            return
        self._queued[key] = replace(queued, wait=wait)
        self._runtime.log.info(
            "batch waits",
            topic=queued.record.topic,
            offset=queued.record.offset,
            reason=wait.reason,
            until=wait.until.isoformat() if wait.until else None,
        )

    def _update_metrics(self) -> None:
        waits = [queued.wait for queued in self._queued.values() if queued.wait]
        metrics = self._runtime.metrics
        metrics.set("ratchet_training_batches_waiting", len(waits))
        next_opening = min((wait.until.timestamp() for wait in waits if wait.until), default=0.0)
        metrics.set("ratchet_training_window_opens_seconds", next_opening)


def _key(record: Record) -> Key:
    return _partition(record), record.offset


def _partition(record: Record) -> Partition:
    return record.topic, record.partition
