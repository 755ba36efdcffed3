"""Leases: one replica at a time holds one, and another takes over from a dead holder."""

import pytest

from services.registry.store.leases import Lease, LeaseLost
from services.registry.store.outbox import OutboxPublisher
from shared.clock import ManualClock
from shared.logs import configure
from shared.messaging.bus import MemoryBus
from tests.support.registry_events import NOW, DatabaseFixture

LOG = configure("test", "error", "text")


class Replicas:
    """Two replicas with separate clocks, and their lease changes."""

    def __init__(self, registry_db: DatabaseFixture) -> None:
        self.registry_db = registry_db
        self.clocks = [ManualClock(NOW), ManualClock(NOW)]
        self.changes = [0, 0]
        self.leases = [self._lease(number) for number in range(2)]

    def _lease(self, number: int) -> Lease:
        def changed() -> None:
            self.changes[number] += 1

        return Lease(
            self.registry_db.database,
            "deploy support",
            f"replica {number}",
            self.clocks[number],
            LOG,
            changed,
            lease_seconds=10,
        )

    async def write(self, number: int) -> None:
        await self.leases[number].run(lambda session: None)

    def pass_(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)


@pytest.fixture
def replicas(registry_db: DatabaseFixture) -> Replicas:
    return Replicas(registry_db)


async def test_holder_keeps_lease_by_heartbeats(replicas: Replicas) -> None:
    first, second = replicas.leases
    assert await first.claim()
    for _ in range(5):
        replicas.pass_(6)
        assert await first.claim()
        assert not await second.claim()
    await replicas.write(0)
    with pytest.raises(LeaseLost):
        await replicas.write(1)
    assert replicas.changes == [1, 0]


async def test_dead_holder_is_replaced_when_lease_expires(replicas: Replicas) -> None:
    """The second sees the heartbeat at 0 s, so it takes over at 10 s and not at 9.9 s."""
    first, second = replicas.leases
    await first.claim()
    assert not await second.claim()
    replicas.pass_(9.9)
    assert not await second.claim()
    replicas.pass_(0.1)
    assert not first.held
    assert await second.claim()
    with pytest.raises(LeaseLost):
        await replicas.write(0)
    assert not await first.claim(), "the paused holder notices the takeover"
    assert replicas.changes == [2, 1]


async def test_clocks_are_never_compared(replicas: Replicas) -> None:
    """The second's clock is a day ahead; it still waits for ten of its own seconds."""
    first, second = replicas.leases
    replicas.clocks[1].advance(86400)
    await first.claim()
    assert not await second.claim()
    replicas.pass_(9)
    assert not await second.claim()


async def test_released_lease_is_free_immediately(replicas: Replicas) -> None:
    first, second = replicas.leases
    await first.claim()
    assert not await second.claim()
    await first.release()
    assert await second.claim()
    await first.release()
    await replicas.write(1)


async def test_second_publisher_resumes_where_first_died(
    registry_db: DatabaseFixture,
) -> None:
    """The outbox has the two events of version 0. The first publisher sends both but dies before it
    marks the second.
    """
    bus, clock = MemoryBus(), ManualClock(NOW)
    first, second = (
        OutboxPublisher(registry_db.database, bus, clock, LOG, name, lease_seconds=10)
        for name in ("first", "second")
    )
    sent_count = 0
    send = bus.send

    async def dies_after_two(*record: object) -> None:
        nonlocal sent_count
        await send(*record)  # type: ignore[arg-type]  # passes all arguments on
        sent_count += 1
        if sent_count == 2:
            raise RuntimeError("kill -9")

    bus.send = dies_after_two  # type: ignore[method-assign, assignment]  # a fault of the bus
    with pytest.raises(RuntimeError):
        await first.publish()
    bus.send = send  # type: ignore[method-assign]  # the fault is over
    await second.publish()
    (log,) = bus.topics.values()
    assert len(log) == 2, "the first has the lease"
    clock.advance(10)
    await second.publish()
    await second.publish()
    assert [record.value for record in log] == [log[0].value, log[1].value, log[1].value]
