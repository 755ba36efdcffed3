"""Batches whose training window is closed wait here, and those behind them go on.

A batch that waits is not committed, nor is anything after it in its partition: whoever owns the
partition next sees all of them again, and what has ended by then is known by its run's id. So
nothing is lost with this list, and nothing in it expires.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from shared.clock import Clock
from shared.logs import Log
from shared.messaging.bus import Record
from shared.observability.metrics import Metrics

POLL_SECONDS = 1.0
"""How late a batch may begin after its window opens."""

Partition = tuple[str, int]


class WindowQueue:
    """`opens_at` says until when a record has to wait, None where it has not to; `owns` whether its
    partition is still ours.
    """

    def __init__(
        self,
        opens_at: Callable[[Record], datetime | None],
        owns: Callable[[Record], bool],
        commit: Callable[[Record], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._opens_at = opens_at
        self._owns = owns
        self._commit = commit
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._waiting: dict[tuple[Partition, int], tuple[Record, datetime]] = {}
        self._done: dict[Partition, Record] = {}

    async def ready_records(
        self, records: AsyncGenerator[Record, None], poll_seconds: float = POLL_SECONDS
    ) -> AsyncGenerator[Record, None]:
        """The records that need not wait, each in its turn, and those that waited once their
        windows are open, the earliest first.

        `records` is asked for the next one also while nothing is due, so that it goes on polling.
        """
        coming: asyncio.Task[Record] | None = None
        try:
            while True:
                while due := self._due():
                    yield due
                coming = coming or asyncio.ensure_future(anext(records))
                await asyncio.wait([coming], timeout=poll_seconds)
                # A window may have opened meanwhile, and what waited for it comes first.
                if not coming.done() or self._is_due():
                    continue
                try:
                    record = coming.result()
                except StopAsyncIteration:
                    return
                finally:
                    coming = None
                if (until := self._opens_at(record)) is None:
                    yield record
                else:
                    self._put_off(record, until)
        finally:
            if coming is not None:
                coming.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await coming

    async def commit(self, record: Record) -> None:
        """Commit as far as everything in the partition of `record`, which is done, is done."""
        place = _place(record)
        last = self._done.get(place, record)
        self._done[place] = last = max(last, record, key=lambda each: each.offset)
        earlier = [offset for where, offset in self._waiting if where == place]
        if not earlier:
            await self._commit(last)
        elif record.offset < min(earlier):
            await self._commit(replace(record, offset=min(earlier) - 1))

    def _put_off(self, record: Record, until: datetime) -> None:
        self._waiting[_place(record), record.offset] = (record, until)
        self._log.info(
            "waiting for the training window",
            topic=record.topic,
            offset=record.offset,
            until=until.isoformat(),
        )
        self._tell()

    def _due(self) -> Record | None:
        """The earliest record whose window is open now. Those of partitions that have gone to
        another owner are its to run.
        """
        for key, (record, until) in sorted(self._waiting.items(), key=lambda item: item[0]):
            if not self._owns(record):
                del self._waiting[key]
                self._done.pop(key[0], None)
            elif until <= self._clock.now():
                del self._waiting[key]
                if (again := self._opens_at(record)) is None:
                    self._tell()
                    return record
                self._put_off(
                    record, again
                )  # the run before it lasted until the window was closed again
        self._tell()
        return None

    def _is_due(self) -> bool:
        return any(until <= self._clock.now() for _, until in self._waiting.values())

    def _tell(self) -> None:
        self._metrics.set("ratchet_training_batches_waiting", len(self._waiting))
        opens = min((until.timestamp() for _, until in self._waiting.values()), default=0.0)
        self._metrics.set("ratchet_training_window_opens_seconds", opens)


def _place(record: Record) -> Partition:
    return record.topic, record.partition
