"""What is done for one scored event: gather, decide, write. Entries go to the table, snapshots to
the object store, batches to the bus.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import (
    ShardKey,
    ShardState,
    find_unannounced_batch,
    members_of_newest_batch,
    repair_entries,
)
from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.withdrawal import mark_examples, withdrawal_events
from services.dataset.snapshot.writer import batch_ready_event, write_snapshot
from shared.clock import Clock
from shared.config.model_file import ModelFile, Models
from shared.errors import Unavailable, Unprocessable
from shared.events import (
    Artefact,
    Event,
    FeedbackScored,
    FeedbackType,
    Position,
    WaitEnded,
    WithdrawalRequested,
)
from shared.failpoints import reach
from shared.identity import identity
from shared.logs import Log
from shared.messaging.bus import Producer, Record, publish, send_dead_letter
from shared.messaging.codec import Headers, decode
from shared.messaging.topics import DATASET_WITHDRAWALS, FEEDBACK_SCORED, TRAINING_BATCHES
from shared.observability.metrics import Metrics
from shared.observability.trace_context import traceparent_for_batch, traceparent_in
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, closed_batch_key
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import BatchManifest, read_manifest

SOURCE = "/ratchet/dataset"
ACCEPTED_EVENTS: tuple[type[FeedbackScored | WithdrawalRequested | WaitEnded], ...] = (
    FeedbackScored,
    WithdrawalRequested,
    WaitEnded,
)
SHARD_METRICS = (
    "ratchet_dataset_pending_examples",
    "ratchet_dataset_held_back_examples",
    "ratchet_dataset_feedback_jump",
    "ratchet_dataset_newest_batch_timestamp_seconds",
)
"""What is told of shards, which may be another worker's after a rebalance."""

MONITORED_KINDS: tuple[FeedbackType, ...] = ("thumbs_up", "thumbs_down", "correction")

# A worker that wakes up after its session has some 2,000 events at hand to write older entries
# from, and a batch has 50 or more of them.
_BATCHES_REMEMBERED = 200

T = TypeVar("T")


class EntryTable(Protocol):
    """Where entries are kept. What `put` and `delete` return is done when the change is durable;
    `hold` changes what is in memory alone.
    """

    def put(self, partition: int, key: str, value: bytes) -> Awaitable[Any]: ...

    def hold(self, key: str, value: bytes) -> None: ...

    def delete(self, partition: int, key: str) -> Awaitable[Any]: ...


class Dataset:
    """Handles one record at a time; a batch is closed before the next record is looked at."""

    def __init__(
        self,
        models: Models,
        table: EntryTable,
        store: ObjectStore,
        producer: Producer,
        metrics: Metrics,
        clock: Clock,
        log: Log,
        retries: int,
        progressed: Callable[[], object] = lambda: None,
        tracing: Tracing = NOOP_TRACING,
    ) -> None:
        """`progressed` is called from a thread while old snapshots are searched, which may take
        longer than a stall.
        """
        self._models = models
        self._golden = {
            name: GoldenSet(
                (line.messages for line in models.golden(name)), file.curation.similarity
            )
            for name, file in models.files.items()
        }
        self._table = table
        self._store = store
        self._producer = producer
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._retries = retries
        self._progressed = progressed
        self._tracing = tracing
        self._ledgers: dict[ShardKey, Ledger] = {}
        self._alarms: set[tuple[str, int, str]] = set()
        # Recovery replaces the ledgers: not while an event is half done with one of them.
        self._lock = asyncio.Lock()
        self._recovered = False
        metrics.init_series("ratchet_dead_letters_total", topic=FEEDBACK_SCORED)
        for name, file in models.files.items():
            metrics.init_series("ratchet_dataset_batches_total", model=name)
            metrics.set(
                "ratchet_dataset_batch_size",
                max(file.curation.batch_size, file.curation.pool or 0),
                model=name,
            )

    async def recover(self, read: Callable[[], dict[ShardKey, ShardState]]) -> None:
        """Go on from what the table says of the partitions that this worker owns; it is read when
        no event is half done.

        Raises Unusable when a snapshot that is needed is not whole.
        """
        async with self._lock:
            self._recovered = False
            self._ledgers.clear()
            self._alarms.clear()
            for metric in SHARD_METRICS:
                self._metrics.remove_series(metric)
            state = read()
            for (model, shard), found in state.items():
                if model not in self._models.files:
                    self._log.warning(
                        "no model file declares it any more",
                        model=model,
                        entries=len(found.entries),
                    )
                    continue
                if (unannounced := find_unannounced_batch(found)) is not None:
                    await self._announce_batch(
                        unannounced, (card.entry for card in found.entries if card.is_waiting)
                    )
                repaired = await asyncio.to_thread(repair_entries, found, self._read)
                await reach("dataset.recovering")
                newest = {card.feedback_id: card for card in found.entries}
                for entry in repaired:
                    card = newest[entry.feedback_id] = CachedEntry.of(entry)
                    await self._table.put(entry.source.partition, entry.key, card.encoded)
                ledger = Ledger.rebuild(
                    self._models.get(model),
                    shard,
                    self._golden[model],
                    newest.values(),
                    found.batches,
                )
                self._ledgers[model, shard] = ledger
                self._lighten(ledger)
                self._export_pending(model, shard)
                self._export_newest_batch(model, shard, members_of_newest_batch(newest.values()))
            self._recovered = True
            self._log.info(
                "recovered",
                entries=sum(len(found.entries) for found in state.values()),
                ledgers=len(self._ledgers),
            )

    async def handle(self, record: Record, logged_at: datetime) -> list[Awaitable[Any]]:
        """Decide about a record; what is returned is awaited until the entries are durable. Raises
        Unavailable after all attempts.
        """
        async with self._lock:
            if not self._recovered:
                raise RuntimeError("an event came before the state was recovered")
            try:
                event = decode(
                    record.value, record.headers, *ACCEPTED_EVENTS, default=FeedbackScored
                ).event
                model_file = self._models.get(event.model)
            except Unprocessable as error:
                self._log.warning(
                    "dead letter",
                    partition=record.partition,
                    offset=record.offset,
                    reason=str(error),
                )
                self._metrics.count("ratchet_dead_letters_total", topic=record.topic)
                return [send_dead_letter(self._producer, record, error, "dataset", self._clock)]
            group = event.model, event.shard
            ledger = self._ledgers.get(group)
            if ledger is None:
                ledger = self._ledgers[group] = Ledger(
                    model_file, event.shard, self._golden[event.model]
                )
            position = Position(
                topic=record.topic, partition=record.partition, offset=record.offset
            )
            if isinstance(event, WaitEnded):
                deliveries = []
                ledger.advance_clock(logged_at)
            elif isinstance(event, WithdrawalRequested):
                deliveries = await self._withdraw(ledger, event, position, logged_at)
            else:
                traceparent = traceparent_in(record.headers) if self._tracing.enabled else None
                deliveries = await self._decide(ledger, event, position, logged_at, traceparent)
            # Asked after a replay as well: the crash may have been between the last entry of a
            # batch and its close.
            deliveries += await self._close_batches(ledger, model_file, record.partition)
            self._lighten(ledger)
            self._update_alarms(event.model, ledger)
            self._export_pending(*group)
            return deliveries

    async def close_overdue_batches(self) -> None:
        """Have the log say that a wait has ended, for each shard in which it has: no decision
        depends on any other clock.
        """
        now = self._clock.now()
        async with self._lock:
            overdue = [group for group, ledger in self._ledgers.items() if ledger.is_overdue(now)]
        for model, shard in overdue:
            event = WaitEnded(
                event_id=identity("wait ended", model, shard, now.isoformat()),
                occurred_at=now,
                model=model,
                shard=shard,
            )
            await publish(
                self._producer,
                FEEDBACK_SCORED,
                self._models.get(model).key_of(shard),
                event,
                SOURCE,
            )

    async def _decide(
        self,
        ledger: Ledger,
        event: FeedbackScored,
        position: Position,
        logged_at: datetime,
        traceparent: str | None,
    ) -> list[Awaitable[Any]]:
        decided = ledger.decide(event, position, logged_at, traceparent)
        await reach("dataset.decided")
        deliveries = [self._table.delete(position.partition, key) for key in decided.expired]
        if decided.entry is not None:
            deliveries.append(self._put(ledger, decided.entry))
        if decided.superseded is not None:
            # After the entry that takes its place, so that a crash between the two leaves what
            # recovery can tell.
            deliveries.append(self._put(ledger, decided.superseded))
        await reach("dataset.entry_sent")
        self._count(event.model, decided.status, decided.entry)
        return deliveries

    async def _withdraw(
        self, ledger: Ledger, request: WithdrawalRequested, position: Position, logged_at: datetime
    ) -> list[Awaitable[Any]]:
        """Mark the snapshots, then say what is withdrawn, then write the entries without it; so
        that a repeat finds what is left to do.
        """
        withdrawn = ledger.withdraw(request, position, logged_at)
        if withdrawn.status != "new":
            return []
        newest, user = ledger.newest_manifest, request.user_id
        found = await self._retry(
            lambda: asyncio.to_thread(mark_examples, self._store, newest, user, self._progressed)
        )
        if found.unread:
            self._log.warning(
                "snapshots could not be searched",
                model=request.model,
                shard=request.shard,
                objects=found.unread,
            )
        for event in withdrawal_events(request, withdrawn.waiting, found):
            await self._announce(DATASET_WITHDRAWALS, request.model, event)
        self._metrics.count("ratchet_dataset_withdrawals_total", model=request.model)
        about = {
            "model": request.model,
            "shard": request.shard,
            "waiting": withdrawn.waiting,
            "batches": len(found.batches),
        }
        self._log.info("withdrawn", forgotten=request.forgotten, **about)
        return [self._put(ledger, entry) for entry in withdrawn.entries]

    async def _close_batches(
        self, ledger: Ledger, model_file: ModelFile, partition: int
    ) -> list[Awaitable[Any]]:
        deliveries: list[Awaitable[Any]] = []
        while closing := ledger.plan_batch():
            batch = await self._record_batch(closing, model_file, ledger.shard, partition)
            await self._announce_batch(batch, closing.members)
            for entry in ledger.close_batch(closing, batch.manifest):
                deliveries.append(self._put(ledger, entry))
                await reach("dataset.member_sent")
            await reach("dataset.batch_closed")
            self._metrics.count("ratchet_dataset_batches_total", model=model_file.model)
            self._export_newest_batch(model_file.model, ledger.shard, closing.members)
            self._log.info(
                "batch closed",
                model=model_file.model,
                shard=ledger.shard,
                number=closing.number,
                batch=closing.batch_id,
            )
        return deliveries

    async def _record_batch(
        self, closing: BatchPlan, model_file: ModelFile, shard: int, partition: int
    ) -> ClosedBatch:
        """Write the snapshot, then the record that fixes for good what the batch is, before anyone
        else hears of it.
        """
        manifest = await self._retry(
            lambda: asyncio.to_thread(write_snapshot, self._store, closing, model_file, shard)
        )
        await reach("dataset.manifest_written")
        batch = ClosedBatch(
            model=model_file.model,
            shard=shard,
            partition=partition,
            number=closing.number,
            size=len(closing.members),
            closed=closing.closed,
            occurred_at=closing.occurred_at,
            manifest=manifest,
        )
        await self._table.put(partition, batch.key, batch.encode())
        if closing.number >= _BATCHES_REMEMBERED:
            await self._table.delete(
                partition,
                closed_batch_key(batch.model, shard, closing.number - _BATCHES_REMEMBERED),
            )
        await reach("dataset.batch_recorded")
        return batch

    async def _announce_batch(self, batch: ClosedBatch, entries: Iterable[DatasetEntry]) -> None:
        """Say what a batch is. Saying it again is harmless: the words are those of its record and
        its manifest. Its members are among `entries`.
        """
        manifest = await self._retry(lambda: asyncio.to_thread(self._read, batch.manifest))
        ready = batch_ready_event(batch, manifest)
        members = frozenset(manifest.feedback_ids)
        links = [
            entry.traceparent
            for entry in entries
            if entry.traceparent and entry.feedback_id in members
        ]
        with self._tracing.span(
            "batch", traceparent=traceparent_for_batch(ready.batch_id), links=links
        ) as span:
            span.set_attributes(
                model=ready.model, batch=ready.batch_id, number=ready.number, members=len(members)
            )
            await self._announce(TRAINING_BATCHES, batch.model, ready, span.headers)
        await reach("dataset.announced")

    def _read(self, artefact: Artefact) -> BatchManifest:
        return read_manifest(self._store, artefact)

    async def _announce(self, topic: str, model: str, event: Event, more: Headers = ()) -> None:
        await self._retry(lambda: publish(self._producer, topic, model, event, SOURCE, more))

    def _put(self, ledger: Ledger, entry: DatasetEntry) -> Awaitable[Any]:
        """The table holds the very bytes that the ledger holds."""
        return self._table.put(
            entry.source.partition, entry.key, ledger.encoded_entry(entry.feedback_id)
        )

    def _lighten(self, ledger: Ledger) -> None:
        for key, value in ledger.lighter():
            self._table.hold(key, value)

    async def _retry(self, act: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, self._retries):
            try:
                return await act()
            except Unavailable as error:
                self._log.warning("retrying", attempt=attempt, reason=str(error))
                await asyncio.sleep(1.0)
        return await act()

    def _count(self, model: str, status: str, entry: DatasetEntry | None) -> None:
        if status == "duplicate":
            self._metrics.count(
                "ratchet_dataset_decisions_total",
                model=model,
                decision="dropped",
                reason="duplicate",
            )
        elif entry is not None:
            self._metrics.count(
                "ratchet_dataset_decisions_total",
                model=model,
                decision=entry.decision,
                reason=entry.reason,
            )

    def _update_alarms(self, model: str, ledger: Ledger) -> None:
        """Raise or end the alarm for each kind of feedback whose share in a shard has jumped."""
        for kind in MONITORED_KINDS:
            alarm = (model, ledger.shard, kind)
            if ledger.feedback_mix.has_spiked(kind) == (alarm in self._alarms):
                continue
            self._alarms ^= {alarm}
            raised = alarm in self._alarms
            self._metrics.set(
                "ratchet_dataset_feedback_jump",
                int(raised),
                model=model,
                shard=str(ledger.shard),
                kind=kind,
            )
            self._log.warning(
                "the mix of feedback has jumped"
                if raised
                else "the mix of feedback is steady again",
                model=model,
                kind=kind,
            )

    def _export_pending(self, model: str, shard: int) -> None:
        ledger = self._ledgers[model, shard]
        self._metrics.set(
            "ratchet_dataset_pending_examples", ledger.pending, model=model, shard=str(shard)
        )
        for reason, count in ledger.deferred.items():
            self._metrics.set(
                "ratchet_dataset_held_back_examples",
                count,
                model=model,
                shard=str(shard),
                reason=reason,
            )

    def _export_newest_batch(
        self, model: str, shard: int, members: Collection[DatasetEntry | CachedEntry]
    ) -> None:
        if members:
            newest = max(member.logged_at for member in members).timestamp()
            self._metrics.set(
                "ratchet_dataset_newest_batch_timestamp_seconds",
                newest,
                model=model,
                shard=str(shard),
            )
