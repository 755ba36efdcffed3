"""The outbox: an event is written in the transaction that decides it, and published afterwards, in
order, at least once, by one replica at a time.
"""

import asyncio
from contextlib import suppress
from datetime import datetime
from functools import partial

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.registry.store.database import Database
from services.registry.store.leases import LEASE_SECONDS, Lease
from services.registry.store.queries import lock_aliases, unpublished_events
from services.registry.store.tables import OutboxRow
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import Event
from shared.logs import Log
from shared.messaging.bus import Producer
from shared.messaging.codec import encode
from shared.messaging.topics import MODELS_VERSIONS

SOURCE = "ratchet/registry"

TRACE_HEADERS = "headers that tell what the work of a session follows from"
"""In `Session.info`: the work itself decides about events, not about the records that will say
them.
"""

_IDLE_SECONDS = 1.0
_AT_ONCE = 100


def enqueue(session: Session, model: str, event: Event, now: datetime) -> None:
    """Have `event` published under the model's key if the transaction commits.

    The model is locked, so that the events of one model are numbered in the order in which their
    transactions commit.
    """
    lock_aliases(session, model)
    value, own = encode(event, SOURCE)
    headers = [*own, *session.info.get(TRACE_HEADERS, ())]
    session.add(
        OutboxRow(
            event_id=event.event_id,
            topic=MODELS_VERSIONS,
            key=model,
            value=value,
            headers={name: content.decode() for name, content in headers},
            created_at=now,
            published_at=None,
        )
    )
    session.flush()


class OutboxPublisher:
    """Publishes what waits, while no other replica does. While the bus is away it tries again;
    nothing is skipped, so order holds.
    """

    def __init__(
        self,
        database: Database,
        producer: Producer,
        clock: Clock,
        log: Log,
        replica: str = "one",
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._producer = producer
        self._clock = clock
        self._log = log
        self._lease = Lease(database, "outbox", replica, clock, log, lease_seconds=lease_seconds)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something was enqueued."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    more = await self.publish()
                except Unavailable as error:
                    self._log.warning("events wait in the outbox", reason=str(error))
                    more = False
                if not more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_IDLE_SECONDS):
                            await self._wake.wait()
        finally:
            await self._lease.release()

    async def publish(self) -> bool:
        """Publish what waits, up to a hundred events; whether more may wait. Nothing while another
        replica does.
        """
        if not await self._lease.ensure_held():
            return False
        rows = await self._database.run(lambda session: unpublished_events(session, _AT_ONCE))
        for row in rows:
            if not await self._lease.ensure_held():
                return False
            headers = [(name, content.encode()) for name, content in row.headers.items()]
            await self._producer.send(row.topic, row.key.encode(), row.value, headers)
            await self._database.run(partial(self._mark, row=row.id, now=self._clock.now()))
        return len(rows) == _AT_ONCE

    def _mark(self, session: Session, row: int, now: datetime) -> None:
        self._lease.guard(session)
        session.execute(update(OutboxRow).where(OutboxRow.id == row).values(published_at=now))
