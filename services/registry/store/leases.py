"""Leases: of several replicas, one at a time deploys a model, and one publishes.

A lease is a row. Its holder shows that it lives by a beat; whoever finds that the beat has stood
still for as long as a lease lasts, by its own clock, takes the row over under the next term. So no
clock is compared with another one. A holder counts its own time from before its beat, so that it
stops before another may begin; what it writes after all, since it was paused, its term gives away.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from services.registry.store.database import Database
from services.registry.store.queries import lock_lease
from services.registry.store.tables import LeaseRow
from shared.clock import Clock
from shared.errors import Unavailable
from shared.logs import Log

LEASE_SECONDS = 10.0
_BEATS = 4
"""How many beats a lease lasts."""


class LeaseLost(Unavailable):
    """Another replica has taken over; what this one was doing is not recorded."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is seen of a holder; alive while it changes."""

    term: int
    beat: int


class Lease:
    """A replica's part in a lease. `changed` is called when it was got or lost."""

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
        self._one_at_a_time = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether this replica is the one, for now."""
        return self._term is not None and self._clock.monotonic() < self._until

    async def maintain(self) -> None:
        """Get the lease when it is free, and keep it; until cancelled."""
        while True:
            try:
                await self.claim()
            except Unavailable as error:
                self._log.warning("a lease cannot be kept", lease=self.name, reason=str(error))
                if self._term is not None and not self.held:
                    self._lose()
            await asyncio.sleep(self._lasts / _BEATS)

    async def ensure_held(self) -> bool:
        """Whether it is held; claimed where the last sign of life is a while ago. Raises
        DatabaseUnavailable.
        """
        if self._term is not None and self._clock.monotonic() < self._until - self._lasts * (
            1 - 1 / _BEATS
        ):
            return True
        return await self.claim()

    async def claim(self) -> bool:
        """Show a sign of life, or take the lease over when its holder shows none; whether it is
        held. Raises DatabaseUnavailable.
        """
        async with self._one_at_a_time:
            return await self._claim()

    async def release(self) -> None:
        """Let another replica take over at once."""
        if self._term is not None:
            term, self._term = self._term, None
            with suppress(Unavailable):
                await self._database.run(partial(_release, name=self.name, term=term))

    def guard(self, session: Session) -> None:
        """In a transaction that writes what only the holder may write. Raises LeaseLost."""
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
        got, self._term, self._until = term != self._term, term, began + self._lasts
        if got:
            self._log.info("lease", lease=self.name, term=term)
            self._changed()
        return True

    def _lose(self) -> None:
        self._term = None
        self._log.warning("lease lost", lease=self.name)
        self._changed()


def _claim(
    session: Session, name: str, replica: str, term: int | None, overdue: Heartbeat | None
) -> tuple[int | None, Heartbeat]:
    """The term of this replica if the lease is its own now, and what is seen of the holder."""
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
