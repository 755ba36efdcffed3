"""Leases: one of several replicas at a time deploys a model, and one publishes the outbox.

A lease is a row that its holder renews with a heartbeat counter. A replica that has seen the same
heartbeat for the duration of a lease, by its own clock, takes the row over with the next term. No
two clocks are compared. A holder measures its lease from before its heartbeat, so it stops before
another replica can start. Late writes of a paused holder are refused by their outdated term.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from services.registry.store.database import Database, SessionInfo
from services.registry.store.queries import lock_lease
from services.registry.store.tables import LeaseRow
from shared.clock import Clock
from shared.errors import Unavailable
from shared.logs import Log

T = TypeVar("T")

LEASE_SECONDS = 10.0
_BEATS = 4
"""Heartbeats per lease duration."""


class LeaseLost(Unavailable):
    """Another replica holds the lease; the transaction of this replica is rolled back."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Term and heartbeat counter of a holder, which is alive while they change."""

    term: int
    beat: int


class Lease:
    """One replica's view of a lease. Calls `on_change` when the replica acquires or loses it."""

    def __init__(
        self,
        database: Database,
        name: str,
        replica: str,
        clock: Clock,
        log: Log,
        on_change: Callable[[], None] = lambda: None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.name = name
        self._database = database
        self._replica = replica
        self._clock = clock
        self._log = log
        self._changed = on_change
        self._lasts = lease_seconds
        self._term: int | None = None
        self._until = 0.0
        self._seen: Heartbeat | None = None
        self._seen_at = 0.0
        self._claim_lock = asyncio.Lock()

    @property
    def held(self) -> bool:
        """True while this replica holds the lease."""
        return self._term is not None and self._clock.monotonic() < self._until

    async def maintain(self) -> None:
        """Acquire the lease when it is free and renew it, until cancelled."""
        while True:
            try:
                await self.claim()
            except Unavailable as error:
                self._log.warning("lease renewal failed", lease=self.name, reason=str(error))
                if self._term is not None and not self.held:
                    self._lose()
            await asyncio.sleep(self._lasts / _BEATS)

    async def ensure_held(self) -> bool:
        """Return whether this replica holds the lease, after renewing it if its last heartbeat is
        old. Raises DatabaseUnavailable.
        """
        if self._term is not None and self._clock.monotonic() < self._until - self._lasts * (
            1 - 1 / _BEATS
        ):
            return True
        return await self.claim()

    async def claim(self) -> bool:
        """Send a heartbeat, or take over the lease of a dead holder. Returns whether this replica
        holds it. Raises DatabaseUnavailable.
        """
        async with self._claim_lock:
            return await self._claim()

    async def release(self) -> None:
        """Release the lease, so another replica can acquire it immediately."""
        if self._term is not None:
            term, self._term = self._term, None
            with suppress(Unavailable):
                await self._database.run(partial(_release, name=self.name, term=term))

    async def run(self, work: Callable[[Session], T], info: SessionInfo | None = None) -> T:
        """Run `work` in a transaction that only the holder may commit. Raises LeaseLost, and
        DatabaseUnavailable.
        """

        def guarded(session: Session) -> T:
            self._guard(session)
            return work(session)

        return await self._database.run(guarded, info)

    def _guard(self, session: Session) -> None:
        """Check in a transaction that this replica still holds the lease. Raises LeaseLost."""
        row = lock_lease(session, self.name)
        if row is None or self._term is None or row.term != self._term:
            raise LeaseLost(f"another replica has taken over {self.name}")

    async def _claim(self) -> bool:
        began = self._clock.monotonic()
        overdue = (
            self._seen if self._seen is not None and began - self._seen_at >= self._lasts else None
        )
        term, sign = await self._database.run(
            partial(_claim, name=self.name, replica=self._replica, term=self._term, overdue=overdue)
        )
        if sign != self._seen:
            self._seen, self._seen_at = sign, self._clock.monotonic()
        if term is None:
            if self._term is not None:
                self._lose()
            return False
        acquired, self._term, self._until = term != self._term, term, began + self._lasts
        if acquired:
            self._log.info("lease acquired", lease=self.name, term=term)
            self._changed()
        return True

    def _lose(self) -> None:
        self._term = None
        self._log.warning("lease lost", lease=self.name)
        self._changed()


def _claim(
    session: Session, name: str, replica: str, term: int | None, overdue: Heartbeat | None
) -> tuple[int | None, Heartbeat]:
    """Return this replica's term, None if it is not the holder, and the holder's heartbeat."""
    row = lock_lease(session, name)
    if row is None:
        row = LeaseRow(name=name, holder=None, term=0, beat=0)
        session.add(row)
    if row.holder is None or Heartbeat(row.term, row.beat) == overdue:
        row.holder, row.term, row.beat = replica, row.term + 1, 0
    elif row.term == term:
        row.beat += 1
    else:
        return None, Heartbeat(row.term, row.beat)
    return row.term, Heartbeat(row.term, row.beat)


def _release(session: Session, name: str, term: int) -> None:
    row = lock_lease(session, name)
    if row is not None and row.term == term:
        row.holder = None
