"""Ten thousand malformed records: each becomes an event or a dead letter and nothing else, and a
second run gives the same result.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from services.dataset.handlers import Dataset
from services.dataset.ledger.results import TableWrite
from services.feedback.app import FeedbackHandler
from services.feedback.scoring import Policies
from shared.clock import ManualClock
from shared.config.models import Models
from shared.events import EVENTS, Event, FeedbackReceived, FeedbackScored
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import Headers, decode
from shared.messaging.dead_letters import DeadLetterInfo, original_headers
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED, TOPICS, dead_letter_topic
from shared.service.consume import consume
from shared.service.retry import RetryPolicy
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry
from shared.storage.object_store import MemoryStore
from tests.support.odd_input import MAKERS, OddInput, generate_odd_inputs
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START, model_file

SEED = 20260504
CASES = 10_000

GOLDEN = Path(__file__).parents[1] / "shared" / "golden"
LOG = structlog.stdlib.get_logger("ratchet.test")
MODELS = Models({"support": model_file()}, Path())


def golden_event(event: type[Event]) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((GOLDEN / f"{event.type_name()}.json").read_text())
    return example


def records(cases: Sequence[OddInput], topic: str) -> list[Record]:
    return [
        Record(topic, 0, offset, case.key, case.value, case.headers)
        for offset, case in enumerate(cases)
    ]


class BufferedMemoryBus(MemoryBus):
    async def send_nowait(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Awaitable[None]:
        return self.send(topic, key, value, headers)


class MemoryTable(dict[str, bytes]):
    """An in-memory table in which every change is durable at once."""

    def put(self, write: TableWrite) -> Awaitable[None]:
        self[write.key] = write.value
        return _completed()

    def put_batch(self, batch: ClosedBatch) -> Awaitable[None]:
        self[batch.key] = batch.encode()
        return _completed()

    def cache(self, key: str, value: bytes) -> None:
        """Ignore values that are kept in memory only."""

    def delete(self, partition: int, key: str) -> Awaitable[None]:
        self.pop(key, None)
        return _completed()


async def _completed() -> None:
    return None


def letters(bus: MemoryBus, topic: str) -> dict[int, Record]:
    """Index dead letters by the offset of their record; check that each has a reason."""
    by_offset: dict[int, Record] = {}
    for letter in bus.topics.get(dead_letter_topic(topic), []):
        names = [name for name, _ in letter.headers if name.startswith("ratchet_")]
        assert sorted(names) == sorted(
            f"ratchet_dlq_{name}" for name in DeadLetterInfo.model_fields
        ), "exactly one set of Ratchet's headers"
        info = DeadLetterInfo.from_headers(letter.headers)
        assert info is not None
        assert info.reason
        assert by_offset.setdefault(info.offset, letter) is letter
    return by_offset


def assert_accounted(
    cases: Sequence[OddInput],
    sent_records: Sequence[Record],
    events: set[int],
    dead: dict[int, Record],
) -> None:
    """Check that every record is an event or a dead letter, as its maker expects, and that a dead
    letter equals its record.
    """
    assert {case.maker for case in cases} == set(MAKERS)
    for case, record in zip(cases, sent_records, strict=True):
        outcome = "letter" if record.offset in dead else "event"
        assert (record.offset in events) != (record.offset in dead), case
        assert case.outcome in (outcome, "either"), (
            case.maker,
            case.value and case.value[:300],
            case.headers[:9],
        )
        if letter := dead.get(record.offset):
            assert (letter.key, letter.value, original_headers(letter.headers)) == (
                record.key,
                record.value,
                original_headers(record.headers),
            )


async def scored(cases: Sequence[OddInput]) -> BufferedMemoryBus:
    """Return the bus after the feedback service handled all cases."""
    bus = BufferedMemoryBus()
    feedback = FeedbackHandler(
        Policies(MODELS), bus, runtime_of("feedback", ManualClock(START), log=LOG)
    )
    for record in records(cases, FEEDBACK_RECEIVED):
        await (await feedback.handle(record))
    return bus


async def collect_batches(sent_records: Sequence[Record]) -> tuple[BufferedMemoryBus, MemoryTable]:
    """Return the bus and the entries after the dataset service handled `sent`."""
    bus, table = BufferedMemoryBus(), MemoryTable()
    runtime = runtime_of("dataset", ManualClock(START), log=LOG)
    dataset = Dataset(MODELS, table, MemoryStore(), bus, runtime, RetryPolicy(attempts=1))
    await dataset.recover(dict)
    for record in sent_records:
        for delivery in await dataset.handle(record, START):
            await delivery
    return bus, table


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOG, "warning", lambda *args, **values: None)


@pytest.mark.timeout(300)
async def test_malformed_feedback_from_end_to_end() -> None:
    cases = generate_odd_inputs(SEED, CASES, golden_event(FeedbackReceived))
    bus = await scored(cases)
    dead = letters(bus, FEEDBACK_RECEIVED)
    events = {
        decode(record.value, record.headers, FeedbackScored).event.received.offset: record
        for record in bus.topics[FEEDBACK_SCORED]
    }
    assert len(events) == len(bus.topics[FEEDBACK_SCORED])
    assert_accounted(cases, records(cases, FEEDBACK_RECEIVED), set(events), dead)
    assert min(len(events), len(dead)) > CASES / 5
    again = await scored(cases)
    assert again.topics == bus.topics, "a second run gives the same events"
    sent_records = [
        Record(FEEDBACK_SCORED, 0, record.offset, record.key, record.value, record.headers)
        for record in bus.topics[FEEDBACK_SCORED]
    ]
    curated_bus, table = await collect_batches(sent_records)
    assert letters(curated_bus, FEEDBACK_SCORED) == {}, (
        "the dataset service accepts all scored events"
    )
    entries = {DatasetEntry.model_validate_json(value).source.offset for value in table.values()}
    assert len(entries) == len(
        {
            decode(record.value, record.headers, FeedbackScored).event.identity
            for record in sent_records
        }
    )


@pytest.mark.timeout(300)
async def test_malformed_scored_feedback() -> None:
    cases = generate_odd_inputs(SEED + 1, CASES, golden_event(FeedbackScored))
    sent_records = records(cases, FEEDBACK_SCORED)
    bus, table = await collect_batches(sent_records)
    dead = letters(bus, FEEDBACK_SCORED)
    entries = {DatasetEntry.model_validate_json(value).feedback_id for value in table.values()}
    processed = {
        record.offset
        for record in sent_records
        if record.offset not in dead
        and decode(record.value, record.headers, FeedbackScored).event.identity in entries
    }
    assert_accounted(cases, sent_records, processed, dead)
    again, table_again = await collect_batches(sent_records)
    assert (again.topics, table_again) == (bus.topics, table)


@pytest.mark.parametrize(
    "event",
    [event for event in EVENTS if event not in (FeedbackReceived, FeedbackScored)],
    ids=lambda event: event.__name__,
)
async def test_every_other_event_in_the_consume_loop(event: type[Event]) -> None:
    (topic,) = (topic for topic in TOPICS if event in topic.events)
    cases = generate_odd_inputs(SEED + 2, 500, golden_event(event))
    sent_records, handled, bus = records(cases, topic.name), set(), MemoryBus()

    async def arriving() -> AsyncIterator[Record]:
        for record in sent_records:
            yield record

    async def handle(record: Record) -> None:
        MODELS.get(getattr(decode(record.value, record.headers, event).event, "model", ""))
        handled.add(record.offset)

    await consume(arriving(), handle, bus.commit, bus, runtime_of())
    assert_accounted(cases, sent_records, handled, letters(bus, topic.name))
    assert bus.committed == {topic.name: len(sent_records)}


def test_the_seed_determines_the_input() -> None:
    first, again, another_seed = (
        generate_odd_inputs(seed, 500, golden_event(FeedbackReceived)) for seed in (1, 1, 2)
    )
    assert first == again != another_seed
    assert Counter(case.maker for case in first).keys() == MAKERS.keys()
