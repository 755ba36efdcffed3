"""The shell on in-memory twins: whatever fails, and wherever a process dies, the batches come out
the same.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from services.dataset.handlers import Dataset
from services.dataset.snapshot.withdrawal_marks import read_mark
from shared.clock import ManualClock
from shared.config.model_file import ModelFile, Models
from shared.errors import StorageUnavailable
from shared.events import (
    Artefact,
    BatchReady,
    ExamplesWithdrawn,
    FeedbackScored,
    WithdrawalRequested,
)
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.codec import Headers, decode, encode
from shared.messaging.topics import (
    DATASET_WITHDRAWALS,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    dead_letter_topic,
)
from shared.observability.metrics import Metrics
from shared.storage.dataset_entries import DatasetEntry, TableState
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import read_manifest
from tests.dataset.events import START, SimulatedShard, model_file, scored, state_of, withdrawal

FILE = model_file(batch_size=4, held_out_share=0.2)
EVENTS: list[FeedbackScored | WithdrawalRequested] = [
    scored(
        f"e{number}",
        "thumbs_down" if number % 5 == 0 else "correction" if number % 3 == 0 else "thumbs_up",
        -1.0 if number % 5 == 0 else 1.0,
        # Every seventh is about the answer before it; every third of them is Ann's.
        response_id=f"r{number - 1 if number % 7 == 0 else number}",
        user_id="ann" if number % 3 == 1 else None,
    )
    for number in range(24)
]
# Ann is forgotten twice, each time when some of what she said waits and some is in a batch.
EVENTS[23:23] = [withdrawal("w2", "ann")]
EVENTS[14:14] = [withdrawal("w1", "ann")]
LOG = [
    Record(FEEDBACK_SCORED, 0, offset, b"support", *_encoded)
    for offset, (value, headers) in enumerate(encode(event, "/test") for event in EVENTS)
    for _encoded in [(value, tuple(headers))]
]


class Death(BaseException):
    """The process is gone: nothing catches it."""


class Outside:
    """All that outlives a process, and a number of writes after which the process dies."""

    def __init__(self, lives: int = 1_000_000) -> None:
        self.entries: dict[str, bytes] = {}
        self.store = MemoryStore()
        self.bus = MemoryBus()
        self.committed = 0
        self.left = lives

    def spend(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Death

    def put(self, partition: int, key: str, value: bytes) -> Awaitable[None]:
        self.spend()
        self.entries[key] = value
        return done()

    def hold(self, key: str, value: bytes) -> None:
        """Nothing outlives the process that is only held."""

    def delete(self, partition: int, key: str) -> Awaitable[None]:
        self.spend()
        self.entries.pop(key, None)
        return done()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        self.spend()
        await self.bus.send(topic, key, value, headers)


class DyingStore(MemoryStore):
    def __init__(self, outside: Outside) -> None:
        self.objects = outside.store.objects
        self._outside = outside

    def put(self, key: str, data: bytes) -> Artefact:
        self._outside.spend()
        return super().put(key, data)


def done() -> Awaitable[None]:
    """A delivery that has been made."""
    delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    delivery.set_result(None)
    return delivery


def dataset(
    outside: Outside, store: MemoryStore | None = None, retries: int = 2, file: ModelFile = FILE
) -> Dataset:
    models = Models({"support": file}, Path())
    clock, log = ManualClock(START), structlog.stdlib.get_logger("test")
    return Dataset(
        models,
        outside,
        store or DyingStore(outside),
        outside,
        Metrics("dataset"),
        clock,
        log,
        retries,
    )


async def live(outside: Outside, file: ModelFile = FILE) -> None:
    """One process from recovery to the end of the log."""
    process = dataset(outside, file=file)
    await process.recover(lambda: state_of(outside.entries))
    for record in LOG[outside.committed :]:
        for delivery in await process.handle(record, START):
            await delivery
        outside.committed = record.offset + 1


async def feed(process: Dataset) -> None:
    for record in LOG:
        await process.handle(record, START)


def batches(outside: Outside) -> dict[int, tuple[str, ...]]:
    """The members of each announced batch; every announcement of a batch says the same."""
    found: dict[int, BatchReady] = {}
    for record in outside.bus.topics.get(TRAINING_BATCHES, []):
        event = decode(record.value, record.headers, BatchReady).event
        assert found.setdefault(event.number, event) == event
    return {
        number: read_manifest(outside.store, event.manifest).feedback_ids
        for number, event in found.items()
    }


def withdrawals(outside: Outside) -> dict[str, ExamplesWithdrawn]:
    """What was said to be withdrawn, by event; every time it was said it was the same."""
    found: dict[str, ExamplesWithdrawn] = {}
    for record in outside.bus.topics.get(DATASET_WITHDRAWALS, []):
        event = decode(record.value, record.headers, ExamplesWithdrawn).event
        assert found.setdefault(event.event_id, event) == event
    return found


def expected(events: Sequence[FeedbackScored | WithdrawalRequested]) -> SimulatedShard:
    world = SimulatedShard(FILE)
    for offset, event in enumerate(events):
        if isinstance(event, WithdrawalRequested):
            world.withdraw(event, offset, START)
        else:
            world.decide(event, offset, START)
    return world


async def test_the_shell_does_what_the_ledger_says() -> None:
    outside, world = Outside(), expected(EVENTS)
    await live(outside)
    assert batches(outside) == world.batches
    assert len(world.batches) == 3
    state = TableState.from_records((key.encode(), value) for key, value in outside.entries.items())
    assert {entry.key: entry.reason for entry in state.entries} == {
        key: entry.reason for key, entry in world.entries.items()
    }
    assert {batch.key for batch in state.batches} == world.records.keys()
    assert {"superseded", "late", "withdrawn"} <= {entry.reason for entry in world.entries.values()}


@pytest.mark.parametrize("behind", [0, 100])
async def test_death_at_any_write_changes_nothing(behind: int) -> None:
    """Death before each write in turn; offsets are committed up to `behind` events after their
    effect.
    """
    whole = Outside()
    await live(whole)
    writes = 1_000_000 - whole.left
    assert writes > 50
    for lives in range(1, writes + 1):
        outside = Outside(lives)
        with pytest.raises(Death):
            await live(outside)
        outside.committed = max(0, outside.committed - behind)
        outside.left = 1_000_000
        await live(outside)
        assert batches(outside) == batches(whole), lives
        assert withdrawals(outside) == withdrawals(whole), lives
        assert outside.entries == whole.entries, lives
        assert outside.store.objects == whole.store.objects, lives


async def test_another_model_file_after_a_death_changes_no_batch_that_anyone_has_heard_of() -> None:
    """Death before each write in turn, and a successor that closes batches earlier and holds out
    more.
    """
    whole = Outside()
    await live(whole)
    for lives in range(1, 1_000_000 - whole.left + 1):
        outside = Outside(lives)
        with pytest.raises(Death):
            await live(outside)
        heard_of = batches(outside)
        outside.left = 1_000_000
        await live(outside, model_file(batch_size=2, held_out_share=0.5))
        found = batches(outside)
        assert heard_of.items() <= found.items(), lives
        members = [feedback_id for batch in found.values() for feedback_id in batch]
        assert len(members) == len(set(members)), lives
        entries = TableState.from_records(
            (key.encode(), value) for key, value in outside.entries.items()
        ).entries
        assert {entry.feedback_id: entry.batch.number for entry in entries if entry.batch} == {
            feedback_id: number for number, batch in found.items() for feedback_id in batch
        }, lives


async def test_what_leaves_the_window_is_held_without_its_signatures_and_is_not_written_again() -> (
    None
):
    """Nor does a worker that starts later write it again, which finds it as it was written."""

    class Holding(Outside):
        def __init__(self) -> None:
            super().__init__()
            self.held: dict[str, bytes] = {}

        def put(self, partition: int, key: str, value: bytes) -> Awaitable[None]:
            self.held.pop(key, None)
            return super().put(partition, key, value)

        def hold(self, key: str, value: bytes) -> None:
            self.held[key] = value

    outside, file = Holding(), model_file(batch_size=4, held_out_share=0.2, share_window=1)
    file = file.model_copy(
        update={
            "lanes": {
                name: lane.model_copy(update={"replay_window": 0})
                for name, lane in file.lanes.items()
            }
        }
    )
    await live(outside, file)
    held, left, written = dict(outside.held), outside.left, dict(outside.entries)
    outside.held.clear()
    await live(outside, file)
    assert (outside.held, outside.left, outside.entries) == (held, left, written)
    assert len(held) > 2
    for key, value in held.items():
        entry = DatasetEntry.model_validate_json(written[key])
        assert (entry.decision, entry.text is None) == ("training", False)
        assert DatasetEntry.model_validate_json(value) == entry.without_signatures()


async def test_a_withdrawal_is_answered_with_what_waited_and_what_is_in_batches_and_the_snapshots_are_marked() -> (
    None
):
    outside = Outside()
    await live(outside)
    first, second = withdrawals(outside).values()
    assert (first.waiting > 0, len(first.batches) > 0, second.waiting > 0) == (True, True, True)
    assert {batch.number for batch in first.batches} < {batch.number for batch in second.batches}
    announced = [
        decode(record.value, record.headers, BatchReady).event
        for record in outside.bus.topics[TRAINING_BATCHES]
    ]
    marks = {event.batch_id: read_mark(outside.store, event.manifest) for event in announced}
    assert {batch.batch_id: set(batch.feedback_ids) for batch in second.batches} == {
        batch_id: set(mark.feedback_ids) for batch_id, mark in marks.items() if mark
    }
    anns = {
        event.identity
        for event in EVENTS
        if isinstance(event, FeedbackScored) and event.user_id == "ann"
    }
    assert {name for batch in second.batches for name in batch.feedback_ids} < anns
    assert not any(b"ann" in value for value in outside.entries.values())


async def test_a_long_search_reports_progress() -> None:
    outside, steps = Outside(), list[None]()
    models = Models({"support": FILE}, Path())
    clock, log = ManualClock(START), structlog.stdlib.get_logger("test")
    process = Dataset(
        models,
        outside,
        outside.store,
        outside,
        Metrics("dataset"),
        clock,
        log,
        1,
        lambda: steps.append(None),
    )
    await process.recover(dict)
    await feed(process)
    assert len(steps) > 1


async def test_a_record_that_is_no_scored_event_goes_to_the_dead_letters_and_the_stream_goes_on() -> (
    None
):
    outside = Outside()
    process = dataset(outside)
    await process.recover(dict)
    for delivery in await process.handle(Record(FEEDBACK_SCORED, 0, 0, b"k", b"{}"), START):
        await delivery
    (letter,) = outside.bus.topics[dead_letter_topic(FEEDBACK_SCORED)]
    assert (letter.key, letter.value) == (b"k", b"{}")
    assert len(await process.handle(LOG[1], START)) == 1


async def test_a_store_that_stays_away_ends_the_process_and_announces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(MemoryStore):
        attempts = 0

        def put(self, key: str, data: bytes) -> Artefact:
            Away.attempts += 1
            raise StorageUnavailable("away")

    async def at_once(seconds: float) -> None:
        assert seconds == 1.0

    monkeypatch.setattr("services.dataset.handlers.asyncio.sleep", at_once)
    outside = Outside()
    process = dataset(outside, Away(), retries=3)
    await process.recover(dict)
    with pytest.raises(StorageUnavailable):
        await feed(process)
    assert Away.attempts == 3
    assert TRAINING_BATCHES not in outside.bus.topics


async def test_a_jump_in_the_mix_raises_an_alarm_and_what_is_held_back_is_counted() -> None:
    metrics, outside = Metrics("dataset"), Outside()
    file = model_file(batch_size=1000, examples_per_user=5, held_out_share=0.0)
    clock, log = ManualClock(START), structlog.stdlib.get_logger("test")
    process = Dataset(
        Models({"support": file}, Path()), outside, outside.store, outside, metrics, clock, log, 1
    )
    await process.recover(dict)
    kinds = ["thumbs_up"] * 400 + ["correction"] * 40

    def gauge(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": "support", "shard": "0", **labels})

    for offset, kind in enumerate(kinds):
        value, headers = encode(
            scored(f"e{offset}", kind, user_id="eve" if kind == "correction" else f"user{offset}"),
            "/test",
        )
        assert not gauge("ratchet_dataset_feedback_jump", kind="correction"), offset
        await process.handle(
            Record(FEEDBACK_SCORED, 0, offset, b"support", value, tuple(headers)), START
        )
        if gauge("ratchet_dataset_feedback_jump", kind="correction"):
            break
    assert 400 < offset < 439
    assert gauge("ratchet_dataset_feedback_jump", kind="thumbs_up") is None
    assert gauge("ratchet_dataset_held_back_examples", reason="limits") == offset - 400 + 1 - 5


async def test_the_end_of_a_wait_is_said_in_the_log_and_closes_the_batch_there() -> None:
    outside = Outside()
    file = model_file(longest_wait_hours=1, smallest_batch=2, held_out_share=0.0)
    clock, log = ManualClock(START), structlog.stdlib.get_logger("test")
    process = Dataset(
        Models({"support": file}, Path()),
        outside,
        outside.store,
        outside,
        Metrics("dataset"),
        clock,
        log,
        1,
    )
    await process.recover(dict)
    for record in LOG[1:4]:
        await process.handle(record, START)
    await process.close_overdue_batches()
    assert FEEDBACK_SCORED not in outside.bus.topics
    clock.advance(3700)
    await process.close_overdue_batches()
    (said,) = outside.bus.topics[FEEDBACK_SCORED]
    assert (said.key, TRAINING_BATCHES in outside.bus.topics) == (b"support", False)
    await process.handle(replace(said, offset=99), clock.now())
    assert [len(members) for members in batches(outside).values()] == [3]
    await process.close_overdue_batches()
    assert len(outside.bus.topics[FEEDBACK_SCORED]) == 1


async def test_nothing_is_decided_before_recovery() -> None:
    with pytest.raises(RuntimeError):
        await dataset(Outside()).handle(LOG[0], START)


async def test_what_is_told_of_shards_is_told_again_after_recovery_of_those_that_are_still_ours() -> (
    None
):
    """Of the batch that closed last it is told when its newest example was logged, whichever worker
    closed it.
    """
    outside, metrics = Outside(), Metrics("dataset")
    clock, log = ManualClock(START), structlog.stdlib.get_logger("test")
    process = Dataset(
        Models({"support": FILE}, Path()), outside, outside.store, outside, metrics, clock, log, 1
    )

    def told(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": "support", "shard": "0"})

    assert (
        metrics.registry.get_sample_value("ratchet_dataset_batches_total", {"model": "support"})
        == 0
    )
    await process.recover(dict)
    for record in LOG:
        assert (told("ratchet_dataset_newest_batch_timestamp_seconds") is None) == (
            not batches(outside)
        )
        for delivery in await process.handle(record, START + timedelta(seconds=record.offset)):
            await delivery
    pending, newest = (
        told("ratchet_dataset_pending_examples"),
        told("ratchet_dataset_newest_batch_timestamp_seconds"),
    )
    assert pending is not None
    assert newest is not None
    assert START.timestamp() < newest < START.timestamp() + len(LOG)
    await process.recover(dict)
    assert (
        told("ratchet_dataset_pending_examples")
        is told("ratchet_dataset_newest_batch_timestamp_seconds")
        is None
    )
    await process.recover(lambda: state_of(outside.entries))
    assert (
        told("ratchet_dataset_pending_examples"),
        told("ratchet_dataset_newest_batch_timestamp_seconds"),
    ) == (pending, newest)
