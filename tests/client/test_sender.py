"""Sending of buffered events, with a fake transport that is unavailable, slow or refuses events."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from ratchet_client.buffer import Buffer
from ratchet_client.counters import Counters
from ratchet_client.sender import Sender
from ratchet_client.spool import DiskSpool, MemorySpool, Spool
from tests.client.fake_transport import FakeTransport, record

ROOM = 1 << 20


class Rig:
    """A running sender with its buffer, spool and transport."""

    def __init__(self, spool: Spool) -> None:
        self.buffer, self.spool, self.transport, self.counters = (
            Buffer(100, ROOM),
            spool,
            FakeTransport(),
            Counters(),
        )
        self.sender = Sender(self.buffer, spool, self.transport, self.counters, safe_within=0.1)

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            assert self.buffer.offer(record(number))
        self.sender.wake()

    @property
    def counts(self) -> dict[str, object]:
        counts = self.counters.counts(0, 0)
        return {
            "sent": counts.sent,
            "spooled": counts.spooled,
            **{reason: count for reason, count in counts.dropped.items() if count},
        }

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def working(spool: Spool) -> AsyncIterator[Rig]:
    rig = Rig(spool)
    running = asyncio.create_task(rig.sender.run())
    yield rig
    await rig.sender.finish(0.2)
    await running
    spool.close()


def event_ids(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


def spooled_ids(folder: Path) -> list[str]:
    """Return the ids of the events that the next process would read."""
    with closing(DiskSpool(folder, ROOM)) as spool:
        return [record.event_id for record in spool.peek(100, ROOM)[0]]


async def test_nothing_is_spooled_while_sends_succeed() -> None:
    async with working(MemorySpool(ROOM)) as rig:
        rig.offer(1, 2)
        await rig.until(lambda: rig.sender.is_idle)
        rig.offer(3)
        await rig.until(lambda: rig.sender.is_idle)
    assert (rig.transport.taken, rig.counts) == (event_ids(1, 2, 3), {"sent": 3, "spooled": 0})


@pytest.mark.parametrize("fault", ["answers", "hangs"])
async def test_an_outage_spools_in_time_and_preserves_order(fault: str, tmp_path: Path) -> None:
    async with working(DiskSpool(tmp_path, ROOM)) as rig:
        setattr(rig.transport, fault, fault == "hangs")
        rig.offer(1, 2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await rig.until(lambda: rig.counts["spooled"] == 2)
        assert loop.time() - started < 1
        rig.offer(3)
        await rig.until(lambda: rig.counts["spooled"] == 3)
        if fault == "answers":
            rig.transport.answers = True
            await rig.until(lambda: rig.sender.is_idle)
            assert rig.transport.taken == event_ids(1, 2, 3)
            rig.offer(4)
            await rig.until(lambda: rig.sender.is_idle)
            assert rig.counts == {"sent": 4, "spooled": 3}
    assert spooled_ids(tmp_path) == ([] if fault == "answers" else event_ids(1, 2, 3))


async def test_a_refused_event_does_not_delay_others() -> None:
    async with working(MemorySpool(ROOM)) as rig:
        rig.transport.refuses = {"e1", "e3", "e5"}
        rig.offer(1, 2, 3, 4)
        await rig.until(lambda: rig.sender.is_idle)
        rig.transport.answers = False
        rig.offer(5, 6)
        await rig.until(lambda: rig.counts["spooled"] == 2)
        rig.transport.answers = True
        await rig.until(lambda: rig.sender.is_idle)
    assert (rig.transport.taken, rig.counts) == (
        event_ids(2, 4, 6),
        {"sent": 3, "spooled": 2, "refused": 3},
    )


async def test_a_full_spool_drops_and_counts_new_events() -> None:
    async with working(MemorySpool(3 * len(record(1).value))) as rig:
        rig.transport.answers = False
        rig.offer(1, 2, 3, 4, 5)
        await rig.until(lambda: rig.sender.is_idle or rig.counts.get("spool_full") == 2)
        rig.transport.answers = True
        await rig.until(lambda: rig.sender.is_idle)
    assert (rig.transport.taken, rig.counts) == (
        event_ids(1, 2, 3),
        {"sent": 3, "spooled": 3, "spool_full": 2},
    )


async def test_a_failing_disk_drops_nothing_while_the_buffer_has_room(
    tmp_path: Path,
) -> None:
    spool = DiskSpool(tmp_path, ROOM)
    async with working(spool) as rig:
        rig.transport.answers = False
        (tmp_path / "0" / "000000000001.jsonl").mkdir()  # so that no segment can have this name
        rig.offer(1, 2)
        await asyncio.sleep(0.5)
        rig.offer(3)
        rig.transport.answers = True
        await rig.until(lambda: rig.sender.is_idle)
    assert (rig.transport.taken, rig.counts.get("closed")) == (event_ids(1, 2, 3), None)


async def test_unsent_events_are_left_to_the_spool_at_the_end(tmp_path: Path) -> None:
    async with working(DiskSpool(tmp_path, ROOM)) as rig:
        rig.transport.hangs = True
        rig.offer(1, 2)
    assert spooled_ids(tmp_path) == event_ids(1, 2)


async def test_an_unexpected_error_counts_as_an_outage(tmp_path: Path) -> None:
    async with working(MemorySpool(ROOM)) as rig:
        send, failed = rig.transport.send, []

        async def fail(records: object) -> None:
            failed.append(records)
            rig.transport.send = send  # type: ignore[method-assign]
            raise RuntimeError("cannot schedule new futures after shutdown")

        rig.transport.send = fail  # type: ignore[method-assign]
        rig.offer(1)
        await rig.until(lambda: rig.sender.is_idle)
    assert (len(failed), rig.transport.taken) == (1, event_ids(1))
