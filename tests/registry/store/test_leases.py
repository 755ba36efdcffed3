"""One replica at a time holds a lease; it is taken over when its holder shows no sign of life."""

import pytest

from services.registry.store.leases import Lease, LeaseLost
from services.registry.store.outbox import OutboxPublisher
from shared.clock import ManualClock
from shared.logs import configure
from shared.messaging.bus import MemoryBus
from tests.registry.samples import NOW, DatabaseFixture

LOG = configure("test", "error", "text")


class Replicas:
    """Two replicas, each with a clock of its own, and what they were told."""

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

    def guard(self, number: int) -> None:
        self.registry_db.run(self.leases[number].guard)

    def pass_(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)


@pytest.fixture
def replicas(registry_db: DatabaseFixture) -> Replicas:
    return Replicas(registry_db)


async def test_the_first_gets_it_and_keeps_it_by_beats(replicas: Replicas) -> None:
    first, second = replicas.leases
    assert await first.claim()
    for _ in range(5):
        replicas.pass_(6)
        assert await first.claim()
        assert not await second.claim()
    replicas.guard(0)
    with pytest.raises(LeaseLost):
        replicas.guard(1)
    assert replicas.changes == [1, 0]


async def test_a_dead_holder_is_followed_after_the_lease_has_lasted(replicas: Replicas) -> None:
    """The second sees the beat at 0 s, so it takes over at 10 s and not at 9.9 s."""
    first, second = replicas.leases
    await first.claim()
    assert not await second.claim()
    replicas.pass_(9.9)
    assert not await second.claim()
    replicas.pass_(0.1)
    assert not first.held
    assert await second.claim()
    with pytest.raises(LeaseLost):
        replicas.guard(0)
    assert not await first.claim(), "who was paused finds that another has taken over"
    assert replicas.changes == [2, 1]


async def test_clocks_are_never_compared(replicas: Replicas) -> None:
    """The second's clock is a day ahead; it still waits for ten of its own seconds."""
    first, second = replicas.leases
    replicas.clocks[1].advance(86400)
    await first.claim()
    assert not await second.claim()
    replicas.pass_(9)
    assert not await second.claim()


async def test_what_is_released_is_free_at_once(replicas: Replicas) -> None:
    first, second = replicas.leases
    await first.claim()
    assert not await second.claim()
    await first.release()
    assert await second.claim()
    await first.release()
    replicas.guard(1)


async def test_one_of_two_publishes_and_the_other_goes_on_where_it_stopped(
    registry_db: DatabaseFixture,
) -> None:
    """Version 0 put two events into the outbox; the first publisher sends both but dies before it
    marks the second.
    """
    bus, clock = MemoryBus(), ManualClock(NOW)
    first, second = (
        OutboxPublisher(registry_db.database, bus, clock, LOG, name, lease_seconds=10)
        for name in ("first", "second")
    )
    sent = 0
    send = bus.send

    async def dies_after_two(*record: object) -> None:
        nonlocal sent
        await send(*record)  # type: ignore[arg-type]  # whatever it is given, handed on
        sent += 1
        if sent == 2:
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
