"""Handlers on in-memory backends: a failure or crash at any point changes no batch."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from services.dataset.handlers import Dataset
from services.dataset.ledger.results import TableWrite
from services.dataset.snapshot.withdrawal_marks import read_mark
from shared.clock import ManualClock
from shared.config.model_file import ModelFile
from shared.config.models import Models
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
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.service.retry import RetryPolicy
from shared.service.runtime import Runtime
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, TableState
from shared.storage.object_store import MemoryStore
from shared.storage.snapshots import read_manifest
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import (
    START,
    SimulatedShard,
    model_file,
    scored,
    state_of,
    withdrawal,
    words,
)

FILE = model_file(batch_size=4, held_out_share=0.2)
EVENTS: list[FeedbackScored | WithdrawalRequested] = [
    scored(
        f"e{number}",
        "thumbs_down" if number % 5 == 0 else "correction" if number % 3 == 0 else "thumbs_up",
        -1.0 if number % 5 == 0 else 1.0,
        # Every seventh event is about the answer of the event before; every third is Ann's.
        response_id=f"r{number - 1 if number % 7 == 0 else number}",
        user_id="ann" if number % 3 == 1 else None,
    )
    for number in range(24)
]
# Ann's feedback is withdrawn twice, each time while some of it waits and some is in a batch.
EVENTS[23:23] = [withdrawal("w2", "ann")]
EVENTS[14:14] = [withdrawal("w1", "ann")]
LOG = [
    Record(FEEDBACK_SCORED, 0, offset, b"support", *_encoded)
    for offset, (value, headers) in enumerate(encode(event, "/test") for event in EVENTS)
    for _encoded in [(value, tuple(headers))]
]


class Killed(BaseException):
    """The process was killed. No handler catches it."""


class Backends:
    """Everything that survives a process, which is killed at a given write."""

    def __init__(self, kill_at: int = 1_000_000) -> None:
        self.entries: dict[str, bytes] = {}
        self.store = MemoryStore()
        self.bus = MemoryBus()
        self.committed = 0
        self.left = kill_at

    def count_write(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def put(self, write: TableWrite) -> Awaitable[None]:
        self.count_write()
        self.entries[write.key] = write.value
        return completed()

    def put_batch(self, batch: ClosedBatch) -> Awaitable[None]:
        self.count_write()
        self.entries[batch.key] = batch.encode()
        return completed()

    def cache(self, key: str, value: bytes) -> None:
        """Ignore values that are kept in memory only."""

    def delete(self, partition: int, key: str) -> Awaitable[None]:
        self.count_write()
        self.entries.pop(key, None)
        return completed()

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        self.count_write()
        await self.bus.send(topic, key, value, headers)


class CountingStore(MemoryStore):
    def __init__(self, backends: Backends) -> None:
        self.objects = backends.store.objects
        self._backends = backends

    def put(self, key: str, data: bytes) -> Artefact:
        self._backends.count_write()
        return super().put(key, data)


def completed() -> Awaitable[None]:
    """A completed delivery."""
    delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    delivery.set_result(None)
    return delivery


def dataset(
    backends: Backends,
    store: MemoryStore | None = None,
    attempts: int = 2,
    file: ModelFile = FILE,
    runtime: Runtime | None = None,
) -> Dataset:
    return Dataset(
        Models({"support": file}, Path()),
        backends,
        store or CountingStore(backends),
        backends,
        runtime or runtime_at_start(),
        RetryPolicy(attempts, seconds=0.0),
    )


def runtime_at_start(metrics: Metrics | None = None, health: Health | None = None) -> Runtime:
    log = structlog.stdlib.get_logger("test")
    return runtime_of("dataset", ManualClock(START), metrics, health, log)


async def run_process(backends: Backends, file: ModelFile = FILE) -> None:
    """Run one process from recovery to the end of the log."""
    process = dataset(backends, file=file)
    await process.recover(lambda: state_of(backends.entries))
    for record in LOG[backends.committed :]:
        for delivery in await process.handle(record, START):
            await delivery
        backends.committed = record.offset + 1


async def feed(process: Dataset) -> None:
    for record in LOG:
        await process.handle(record, START)


def batches(backends: Backends) -> dict[int, tuple[str, ...]]:
    """Members of each announced batch. Repeated announcements of a batch must be equal."""
    announced: dict[int, BatchReady] = {}
    for record in backends.bus.topics.get(TRAINING_BATCHES, []):
        event = decode(record.value, record.headers, BatchReady).event
        assert announced.setdefault(event.number, event) == event
    return {
        number: read_manifest(backends.store, event.manifest).feedback_ids
        for number, event in announced.items()
    }


def withdrawals(backends: Backends) -> dict[str, ExamplesWithdrawn]:
    """Withdrawal events by ID. Repeated ones must be equal."""
    events: dict[str, ExamplesWithdrawn] = {}
    for record in backends.bus.topics.get(DATASET_WITHDRAWALS, []):
        event = decode(record.value, record.headers, ExamplesWithdrawn).event
        assert events.setdefault(event.event_id, event) == event
    return events


def expected(events: Sequence[FeedbackScored | WithdrawalRequested]) -> SimulatedShard:
    shard = SimulatedShard(FILE)
    for offset, event in enumerate(events):
        if isinstance(event, WithdrawalRequested):
            shard.withdraw(event, offset, START)
        else:
            shard.decide(event, offset, START)
    return shard


async def test_handlers_apply_the_ledgers_updates() -> None:
    backends, shard = Backends(), expected(EVENTS)
    await run_process(backends)
    assert batches(backends) == shard.batches
    assert len(shard.batches) == 3
    state = TableState.from_records(
        (key.encode(), value) for key, value in backends.entries.items()
    )
    assert {entry.key: entry.reason for entry in state.entries} == {
        key: entry.reason for key, entry in shard.entries.items()
    }
    assert {batch.key for batch in state.batches} == shard.records.keys()
    assert {"superseded", "late", "withdrawn"} <= {entry.reason for entry in shard.entries.values()}


@pytest.mark.parametrize("behind", [0, 100])
async def test_kill_at_any_write_changes_nothing(behind: int) -> None:
    """Kill before each write in turn. Offsets are committed up to `behind` events late."""
    whole = Backends()
    await run_process(whole)
    writes = 1_000_000 - whole.left
    assert writes > 50
    for kill_at in range(1, writes + 1):
        backends = Backends(kill_at)
        with pytest.raises(Killed):
            await run_process(backends)
        backends.committed = max(0, backends.committed - behind)
        backends.left = 1_000_000
        await run_process(backends)
        assert batches(backends) == batches(whole), kill_at
        assert withdrawals(backends) == withdrawals(whole), kill_at
        assert backends.entries == whole.entries, kill_at
        assert backends.store.objects == whole.store.objects, kill_at


async def test_new_model_file_changes_no_announced_batch() -> None:
    """Kill before each write in turn. The successor closes batches earlier and holds out more."""
    whole = Backends()
    await run_process(whole)
    for kill_at in range(1, 1_000_000 - whole.left + 1):
        backends = Backends(kill_at)
        with pytest.raises(Killed):
            await run_process(backends)
        announced_before = batches(backends)
        backends.left = 1_000_000
        await run_process(backends, model_file(batch_size=2, held_out_share=0.5))
        after = batches(backends)
        assert announced_before.items() <= after.items(), kill_at
        members = [feedback_id for batch in after.values() for feedback_id in batch]
        assert len(members) == len(set(members)), kill_at
        entries = TableState.from_records(
            (key.encode(), value) for key, value in backends.entries.items()
        ).entries
        assert {entry.feedback_id: entry.batch.number for entry in entries if entry.batch} == {
            feedback_id: number for number, batch in after.items() for feedback_id in batch
        }, kill_at


async def test_dropped_signatures_are_not_written() -> None:
    class CachingBackends(Backends):
        def __init__(self) -> None:
            super().__init__()
            self.cached: dict[str, bytes] = {}

        def put(self, write: TableWrite) -> Awaitable[None]:
            self.cached.pop(write.key, None)
            return super().put(write)

        def cache(self, key: str, value: bytes) -> None:
            self.cached[key] = value

    backends, file = CachingBackends(), model_file(batch_size=4, held_out_share=0.2, share_window=1)
    file = file.model_copy(
        update={
            "lanes": {
                name: lane.model_copy(update={"replay_window": 0})
                for name, lane in file.lanes.items()
            }
        }
    )
    await run_process(backends, file)
    cached, left, written = dict(backends.cached), backends.left, dict(backends.entries)
    backends.cached.clear()
    await run_process(backends, file)
    assert (backends.cached, backends.left, backends.entries) == (cached, left, written)
    assert len(cached) > 2
    for key, value in cached.items():
        entry = DatasetEntry.model_validate_json(written[key])
        assert (entry.decision, entry.text is None) == ("training", False)
        assert DatasetEntry.model_validate_json(value) == entry.without_texts()


async def test_withdrawal_is_announced_and_snapshots_are_marked() -> None:
    backends = Backends()
    await run_process(backends)
    first, second = withdrawals(backends).values()
    assert (first.waiting > 0, len(first.batches) > 0, second.waiting > 0) == (True, True, True)
    assert {batch.number for batch in first.batches} < {batch.number for batch in second.batches}
    announced = [
        decode(record.value, record.headers, BatchReady).event
        for record in backends.bus.topics[TRAINING_BATCHES]
    ]
    marks = {event.batch_id: read_mark(backends.store, event.manifest) for event in announced}
    assert {batch.batch_id: set(batch.feedback_ids) for batch in second.batches} == {
        batch_id: set(mark.feedback_ids) for batch_id, mark in marks.items() if mark
    }
    anns = {
        event.identity
        for event in EVENTS
        if isinstance(event, FeedbackScored) and event.user_id == "ann"
    }
    assert {name for batch in second.batches for name in batch.feedback_ids} < anns
    assert not any(b"ann" in value for value in backends.entries.values())


async def test_long_snapshot_search_reports_progress() -> None:
    class CountingHealth(Health):
        steps = 0

        def record_progress(self, busy: bool = False, ago: float = 0.0) -> None:
            self.steps += 1

    backends, health = Backends(), CountingHealth(ManualClock(START))
    process = dataset(backends, runtime=runtime_at_start(health=health))
    await process.recover(dict)
    before = health.steps
    await feed(process)
    assert health.steps > before + 1


async def test_invalid_record_becomes_dead_letter() -> None:
    backends = Backends()
    process = dataset(backends)
    await process.recover(dict)
    for delivery in await process.handle(Record(FEEDBACK_SCORED, 0, 0, b"k", b"{}"), START):
        await delivery
    (letter,) = backends.bus.topics[dead_letter_topic(FEEDBACK_SCORED)]
    assert (letter.key, letter.value) == (b"k", b"{}")
    assert len(await process.handle(LOG[1], START)) == 1


async def test_unavailable_store_raises_after_all_attempts() -> None:
    class UnavailableStore(MemoryStore):
        attempts = 0

        def put(self, key: str, data: bytes) -> Artefact:
            self.attempts += 1
            raise StorageUnavailable("unavailable")

    backends, store = Backends(), UnavailableStore()
    process = dataset(backends, store, attempts=3)
    await process.recover(dict)
    with pytest.raises(StorageUnavailable):
        await feed(process)
    assert store.attempts == 3
    assert TRAINING_BATCHES not in backends.bus.topics


async def test_alarm_while_most_of_the_feedback_is_dropped() -> None:
    metrics, backends = Metrics("dataset"), Backends()
    file = model_file(batch_size=1000, examples_per_user=1000, held_out_share=0.0)
    process = dataset(backends, file=file, runtime=runtime_at_start(metrics))
    await process.recover(dict)
    same = {"input": words("same"), "output": words("same answer")}
    fields: list[dict[str, str]] = [same] * 60 + [{} for _ in range(60)]
    raised = []
    for offset, texts in enumerate(fields):
        value, headers = encode(scored(f"e{offset}", **texts), "/test")
        await process.handle(
            Record(FEEDBACK_SCORED, 0, offset, b"support", value, tuple(headers)), START
        )
        labels = {"model": "support", "shard": "0"}
        raised.append(metrics.registry.get_sample_value("ratchet_dataset_mostly_dropped", labels))
    assert raised[48:50] == [None, 1.0]
    assert raised[-1] == 0.0
    assert set(raised[49:100]) == {1.0}


async def test_feedback_spike_raises_alarm_and_deferred_are_counted() -> None:
    metrics, backends = Metrics("dataset"), Backends()
    file = model_file(batch_size=1000, examples_per_user=5, held_out_share=0.0)
    process = dataset(backends, file=file, runtime=runtime_at_start(metrics))
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


async def test_wait_ended_is_published_and_closes_the_batch() -> None:
    backends = Backends()
    file = model_file(longest_wait_hours=1, smallest_batch=2, held_out_share=0.0)
    clock = ManualClock(START)
    process = dataset(backends, file=file, runtime=runtime_of("dataset", clock))
    await process.recover(dict)
    for record in LOG[1:4]:
        await process.handle(record, START)
    await process.close_overdue_batches()
    assert FEEDBACK_SCORED not in backends.bus.topics
    clock.advance(3700)
    await process.close_overdue_batches()
    (published,) = backends.bus.topics[FEEDBACK_SCORED]
    assert (published.key, TRAINING_BATCHES in backends.bus.topics) == (b"support", False)
    await process.handle(replace(published, offset=99), clock.now())
    assert [len(members) for members in batches(backends).values()] == [3]
    await process.close_overdue_batches()
    assert len(backends.bus.topics[FEEDBACK_SCORED]) == 1


async def test_no_decision_before_recovery() -> None:
    with pytest.raises(RuntimeError):
        await dataset(Backends()).handle(LOG[0], START)


async def test_shard_gauges_are_exported_again_after_recovery() -> None:
    """The gauge of the newest batch is the log time of its newest member, whichever worker closed
    it.
    """
    backends, metrics = Backends(), Metrics("dataset")
    process = dataset(backends, runtime=runtime_at_start(metrics))

    def gauge(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": "support", "shard": "0"})

    assert (
        metrics.registry.get_sample_value("ratchet_dataset_batches_total", {"model": "support"})
        == 0
    )
    await process.recover(dict)
    for record in LOG:
        assert (gauge("ratchet_dataset_newest_batch_timestamp_seconds") is None) == (
            not batches(backends)
        )
        for delivery in await process.handle(record, START + timedelta(seconds=record.offset)):
            await delivery
    pending, newest = (
        gauge("ratchet_dataset_pending_examples"),
        gauge("ratchet_dataset_newest_batch_timestamp_seconds"),
    )
    assert pending is not None
    assert newest is not None
    assert START.timestamp() < newest < START.timestamp() + len(LOG)
    await process.recover(dict)
    assert (
        gauge("ratchet_dataset_pending_examples")
        is gauge("ratchet_dataset_newest_batch_timestamp_seconds")
        is None
    )
    await process.recover(lambda: state_of(backends.entries))
    assert (
        gauge("ratchet_dataset_pending_examples"),
        gauge("ratchet_dataset_newest_batch_timestamp_seconds"),
    ) == (pending, newest)
