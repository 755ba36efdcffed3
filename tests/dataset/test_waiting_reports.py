"""Reports of waiting examples: only changes, a bounded number at once, and none is lost."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import ShardKey
from services.dataset.waiting import statuses_of
from services.dataset.waiting_reports import MAX_REPORTS, WaitingReports
from shared.config.models import Models
from shared.errors import BusUnavailable
from shared.events import Position, WaitingReported
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import Headers, decode
from shared.messaging.topics import DATASET_ENTRIES, DATASET_WAITING, FEEDBACK_SCORED
from tests.dataset.test_handlers import FILE as BATCHES_OF_4
from tests.dataset.test_handlers import Backends, dataset, feed
from tests.support.scored_feedback import START, model_file, scored, state_of

FILE = model_file(held_out_share=0.0, batch_size=50).model_copy(update={"shards": 30})


class BusWithFaults(MemoryBus):
    """A bus that refuses records after a number of them."""

    accepted = 1_000_000

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        self.accepted -= 1
        if self.accepted < 0:
            raise BusUnavailable("no broker")
        await super().send(topic, key, value, headers)


def reported(bus: MemoryBus) -> list[WaitingReported]:
    return [
        decode(record.value, record.headers, WaitingReported).event
        for record in bus.topics.get(DATASET_WAITING, [])
    ]


class Worker:
    """Ledgers of some shards, each with one waiting example, and their reports."""

    def __init__(self, shards: int) -> None:
        self.bus = BusWithFaults()
        self.reports = WaitingReports(Models({"support": FILE}, Path()), self.bus)
        self.ledgers = {("support", shard): Ledger(FILE, shard) for shard in range(shards)}
        self._offset = 0
        for shard_key in self.ledgers:
            self.decide(shard_key)

    def decide(self, shard_key: ShardKey) -> None:
        self._offset += 1
        position = Position(topic=FEEDBACK_SCORED, partition=0, offset=self._offset)
        event = scored(f"e{self._offset}", user_id="ann")
        self.ledgers[shard_key].decide(event, position, START)
        self.reports.changed[shard_key] = None

    def report(self) -> list[int]:
        """Publish what is due; return the shards of these reports."""
        before = len(reported(self.bus))
        statuses = self.reports.collect(self.ledgers)
        asyncio.run(self.reports.publish(statuses, START + timedelta(seconds=before)))
        return [event.shard for event in reported(self.bus)[before:]]


def test_only_changes_are_reported() -> None:
    worker = Worker(2)
    assert worker.report() == [0, 1]
    assert worker.report() == []
    worker.reports.changed["support", 0] = None
    assert worker.report() == [], "an event that changed nothing"
    worker.decide(("support", 1))
    assert worker.report() == [1]
    newest = reported(worker.bus)[-1]
    assert (newest.model, newest.status.usable, newest.occurred_at) == (
        "support",
        2,
        START + timedelta(seconds=2),
    )
    keys = [record.key for record in worker.bus.topics[DATASET_WAITING]]
    assert keys == [b"support#0", b"support#1", b"support#1"]
    assert len({event.event_id for event in reported(worker.bus)}) == 3


def test_reports_are_bounded_and_the_rest_follows() -> None:
    worker = Worker(MAX_REPORTS + 5)
    assert worker.report() == list(range(MAX_REPORTS))
    worker.decide(("support", 0))
    assert worker.report() == [*range(MAX_REPORTS, MAX_REPORTS + 5), 0]


def test_a_failed_report_is_repeated() -> None:
    worker = Worker(3)
    worker.bus.accepted = 1
    with pytest.raises(BusUnavailable):
        worker.report()
    worker.bus.accepted = 1_000_000
    assert worker.report() == [1, 2]


def test_a_new_assignment_reports_its_shards_alone() -> None:
    worker = Worker(3)
    worker.report()
    del worker.ledgers["support", 1]
    worker.decide(("support", 0))
    worker.reports.changed["support", 1] = None
    worker.reports.reset(worker.ledgers)
    assert worker.report() == [0, 2]
    worker.reports.changed["support", 1] = None
    assert worker.report() == []


async def test_the_service_reports_what_the_command_shows() -> None:
    """The report is the status of a ledger rebuilt from the table, also after a restart."""
    backends = Backends()
    process = dataset(backends)
    await process.recover(lambda: state_of(backends.entries))
    await process.report_waiting()
    assert reported(backends.bus) == []
    await feed(process)
    await process.report_waiting()
    (report,) = reported(backends.bus)
    table = enumerate(backends.entries.items())
    (status,) = statuses_of(
        BATCHES_OF_4,
        (Record(DATASET_ENTRIES, 0, at, key.encode(), value) for at, (key, value) in table),
    )
    assert (report.shard, report.status) == (0, status)
    assert status.usable + status.deferred > 0
    restarted = dataset(backends)
    await restarted.recover(lambda: state_of(backends.entries))
    await restarted.report_waiting()
    assert [each.status for each in reported(backends.bus)] == [status, status]
