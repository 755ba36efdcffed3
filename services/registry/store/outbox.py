"""Transactional outbox: an event is written in the transaction of its decision and published
afterwards, in order, at least once, by one replica at a time.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TypeAlias

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.registry.store.database import Database, SessionInfo
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.queries import lock_aliases, unpublished_events
from services.registry.store.tables import OutboxRow
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import ControlEvent, FeedbackReceived, TrainingRequested, VersionEvent
from shared.logs import Log
from shared.messaging.bus import Producer
from shared.messaging.codec import encode
from shared.messaging.topics import (
    FEEDBACK_RECEIVED,
    MODELS_VERSIONS,
    TRAINING_CONTROLS,
    TRAINING_REQUESTS,
)

RegistryEvent: TypeAlias = ControlEvent | FeedbackReceived | TrainingRequested | VersionEvent
"""Events that the registry decides, about one model each."""

SOURCE = "ratchet/registry"

TRACE_HEADERS = "trace headers"
"""Key in `Session.info` for the trace headers of the events that a transaction enqueues."""

_ENQUEUED = "enqueued"
"""Key in `Session.info` of a transaction that enqueued an event."""

_IDLE_SECONDS = 1.0
_AT_ONCE = 100


def enqueue(session: Session, events: Iterable[RegistryEvent], now: datetime) -> None:
    """Publish events after the transaction has committed.

    The commit wakes the publisher. Locks each model, so its events are numbered in the order in
    which their transactions commit.
    """
    for event in events:
        lock_aliases(session, event.model)
        value, own = encode(event, SOURCE)
        headers = [*own, *session.info.get(TRACE_HEADERS, ())]
        session.add(
            OutboxRow(
                event_id=event.event_id,
                topic=_topic_of(event),
                key=event.key if isinstance(event, FeedbackReceived) else event.model,
                value=value,
                headers={name: content.decode() for name, content in headers},
                created_at=now,
                published_at=None,
            )
        )
        session.flush()
        session.info[_ENQUEUED] = True


def _topic_of(event: RegistryEvent) -> str:
    if isinstance(event, FeedbackReceived):
        return FEEDBACK_RECEIVED
    if isinstance(event, ControlEvent):
        return TRAINING_CONTROLS
    return TRAINING_REQUESTS if isinstance(event, TrainingRequested) else MODELS_VERSIONS


class OutboxPublisher:
    """Publishes the outbox while this replica holds its lease. Retries while Kafka is unavailable;
    skips nothing, so the order is kept.
    """

    def __init__(
        self,
        database: Database,
        producer: Producer,
        clock: Clock,
        log: Log,
        replica: str = "one",
        lease_seconds: float = LEASE_SECONDS,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """`idle_seconds`: pause before looking for events of other replicas."""
        self._database = database
        self._producer = producer
        self._clock = clock
        self._log = log
        self._lease = Lease(database, "outbox", replica, clock, log, lease_seconds=lease_seconds)
        self._idle_seconds = idle_seconds
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        database.on_commit(self._after_commit)

    async def run(self) -> None:
        """Publish until cancelled: events of this replica as soon as their transaction commits."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                try:
                    more = await self.publish()
                except Unavailable as error:
                    self._log.warning("outbox publishing failed, retrying", reason=str(error))
                    more = False
                if not more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._idle_seconds):
                            await self._wake.wait()
        finally:
            self._loop = None
            await self._lease.release()

    def _after_commit(self, info: SessionInfo) -> None:
        """Wake the publisher from the thread of a transaction that enqueued events."""
        loop = self._loop
        if loop is not None and info.get(_ENQUEUED):
            loop.call_soon_threadsafe(self._wake.set)

    async def publish(self) -> bool:
        """Publish up to a hundred events. Returns whether more may wait; False while another
        replica holds the lease.
        """
        if not await self._lease.ensure_held():
            return False
        rows = await self._database.run(lambda session: unpublished_events(session, _AT_ONCE))
        for row in rows:
            if not await self._lease.ensure_held():
                return False
            headers = [(name, content.encode()) for name, content in row.headers.items()]
            await self._producer.send(row.topic, row.key.encode(), row.value, headers)
            await self._lease.run(partial(_mark_published, row=row.id, now=self._clock.now()))
        return len(rows) == _AT_ONCE


def _mark_published(session: Session, row: int, now: datetime) -> None:
    session.execute(update(OutboxRow).where(OutboxRow.id == row).values(published_at=now))
