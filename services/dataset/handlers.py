"""Handling of one record of `feedback.scored`: gather, decide, apply.

The ledger of the record's shard decides and returns one `ShardUpdate`. The handler applies it:
entries go to the table, snapshots to the object store, batches and withdrawals to their topics.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.dataset import SOURCE
from services.dataset.batch_publisher import BatchPublisher
from services.dataset.entry_table import EntryTable
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
from services.dataset.ledger.results import BatchPlan, ShardUpdate, TableWrite
from services.dataset.shard_metrics import DatasetMetrics
from services.dataset.waiting_reports import WaitingReports
from services.dataset.withdrawal_publisher import WithdrawalPublisher
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import Unprocessable
from shared.events import FeedbackScored, Position, WaitEnded, WithdrawalRequested
from shared.failpoints import reach
from shared.identity import identity
from shared.messaging.bus import Producer, Record, publish, send_dead_letter
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_SCORED
from shared.observability.trace_context import traceparent_in
from shared.service.retry import RetryPolicy
from shared.service.runtime import Runtime
from shared.storage.object_store import ObjectStore

DatasetEvent = FeedbackScored | WithdrawalRequested | WaitEnded
ACCEPTED_EVENTS: tuple[type[DatasetEvent], ...] = (FeedbackScored, WithdrawalRequested, WaitEnded)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Input of one decision: the event, the position and time of its record, its span context and
    its model's file.
    """

    event: DatasetEvent
    position: Position
    logged_at: datetime
    traceparent: str | None
    model_file: ModelFile

    @property
    def shard_key(self) -> ShardKey:
        return self.event.model, self.event.shard


class Dataset:
    """Handles one record at a time. A batch that it fills is closed before the next record."""

    def __init__(
        self,
        models: Models,
        table: EntryTable,
        store: ObjectStore,
        producer: Producer,
        runtime: Runtime,
        retry: RetryPolicy,
    ) -> None:
        self._models = models
        self._golden = {
            name: GoldenSet(
                (example.messages for example in models.golden(name)), file.curation.similarity
            )
            for name, file in models.files.items()
        }
        self._table = table
        self._producer = producer
        self._clock = runtime.clock
        self._log = runtime.log
        self._tracing = runtime.tracing
        self._metrics = DatasetMetrics(runtime.metrics, runtime.log, models.files)
        self._batches = BatchPublisher(table, store, producer, retry, runtime.log, runtime.tracing)
        self._waiting = WaitingReports(models, producer)
        self._withdrawals = WithdrawalPublisher(store, producer, retry, runtime.log, runtime.health)
        self._ledgers: dict[ShardKey, Ledger] = {}
        # Recovery replaces the ledgers, which must not happen while an event is being applied.
        self._lock = asyncio.Lock()
        self._recovered = False

    async def recover(self, read: Callable[[], dict[ShardKey, ShardState]]) -> None:
        """Rebuild the ledgers from the table's state for the partitions that this worker owns.
        `read` is called while no event is being applied.

        Raises InvalidArtefact if a snapshot that is needed is damaged.
        """
        async with self._lock:
            self._recovered = False
            self._ledgers.clear()
            self._metrics.reset_shards()
            shards = read()
            for shard_key, state in shards.items():
                model, _ = shard_key
                if model not in self._models.files:
                    self._log.warning(
                        "entries ignored: no model file declares the model",
                        model=model,
                        entries=len(state.entries),
                    )
                    continue
                self._ledgers[shard_key] = await self._recover_shard(shard_key, state)
            self._waiting.reset(self._ledgers)
            self._recovered = True
            self._log.info(
                "recovered",
                entries=sum(len(state.entries) for state in shards.values()),
                ledgers=len(self._ledgers),
            )

    async def handle(self, record: Record, logged_at: datetime) -> list[Awaitable[Any]]:
        """Handle a record. Return the deliveries to await before its offset is committed. Raises
        Unavailable after all attempts.
        """
        async with self._lock:
            if not self._recovered:
                raise RuntimeError("event received before recovery")
            try:
                gathered = self._gather(record, logged_at)
            except Unprocessable as error:
                return [self._reject(record, error)]
            ledger = self._ledger_of(gathered.shard_key)
            update = _decide(ledger, gathered)
            return await self._apply(ledger, update, gathered)

    async def close_overdue_batches(self) -> None:
        """Publish `WaitEnded` for each shard whose batch is overdue. It closes the batch when it is
        read back: every decision depends on the log's clock alone.
        """
        now = self._clock.now()
        async with self._lock:
            overdue = [
                shard_key for shard_key, ledger in self._ledgers.items() if ledger.is_overdue(now)
            ]
        for model, shard in overdue:
            event = WaitEnded(
                event_id=identity("wait ended", model, shard, now.isoformat()),
                occurred_at=now,
                model=model,
                shard=shard,
            )
            key = self._models.get(model).key_of(shard)
            await publish(self._producer, FEEDBACK_SCORED, key, event, SOURCE)

    async def report_waiting(self) -> None:
        """Publish the waiting examples of the shards in which they have changed. Raises
        BusUnavailable; the next call repeats it.
        """
        async with self._lock:
            now = self._clock.now()
            statuses = self._waiting.collect(self._ledgers)
        await self._waiting.publish(statuses, now)

    async def _recover_shard(self, shard_key: ShardKey, state: ShardState) -> Ledger:
        """Complete what a crash has interrupted, then rebuild the shard's ledger."""
        model, shard = shard_key
        if (unannounced := find_unannounced_batch(state)) is not None:
            waiting = (cached.entry for cached in state.entries if cached.is_waiting)
            await self._batches.announce(unannounced, waiting)
        repaired = await asyncio.to_thread(repair_entries, state, self._batches.read_manifest)
        await reach("dataset.recovering")
        entries = {cached.feedback_id: cached for cached in state.entries}
        for entry in repaired:
            cached = entries[entry.feedback_id] = CachedEntry.of(entry)
            write = TableWrite(entry.source.partition, entry.key, cached.encoded)
            await self._table.put(write)
        ledger = Ledger.rebuild(
            self._models.get(model), shard, self._golden[model], entries.values(), state.batches
        )
        update = ledger.current_state()
        self._finish(shard_key, update)
        self._metrics.set_newest_batch(shard_key, members_of_newest_batch(entries.values()))
        return ledger

    def _gather(self, record: Record, logged_at: datetime) -> _Gathered:
        """Decode a record. Raises Unprocessable, also for an undeclared model."""
        event = decode(record.value, record.headers, *ACCEPTED_EVENTS, default=FeedbackScored).event
        model_file = self._models.get(event.model)
        position = Position(topic=record.topic, partition=record.partition, offset=record.offset)
        traceparent = traceparent_in(record.headers) if self._tracing.enabled else None
        return _Gathered(event, position, logged_at, traceparent, model_file)

    def _reject(self, record: Record, error: Unprocessable) -> Awaitable[Any]:
        self._log.warning(
            "dead letter", partition=record.partition, offset=record.offset, reason=str(error)
        )
        self._metrics.count_dead_letter(record.topic)
        return send_dead_letter(self._producer, record, error, "dataset", self._clock)

    def _ledger_of(self, shard_key: ShardKey) -> Ledger:
        model, shard = shard_key
        if shard_key not in self._ledgers:
            self._ledgers[shard_key] = Ledger(self._models.get(model), shard, self._golden[model])
        return self._ledgers[shard_key]

    async def _apply(
        self, ledger: Ledger, update: ShardUpdate, gathered: _Gathered
    ) -> list[Awaitable[Any]]:
        """Apply an update, then close the batches that it fills, also after a replay: the crash may
        have fallen between the last entry of a batch and its close.
        """
        model, _ = shard_key = gathered.shard_key
        partition = gathered.position.partition
        await reach("dataset.decided")
        if update.withdrawal is not None:
            await self._withdrawals.publish(update.withdrawal)
            self._metrics.count_withdrawal(model)
        deliveries = [self._table.delete(partition, key) for key in update.expired]
        deliveries += map(self._table.put, update.writes)
        await reach("dataset.entry_sent")
        self._finish(shard_key, update)
        while update.batch is not None:
            plan = update.batch
            manifest = await self._batches.publish(
                plan, gathered.model_file, gathered.event.shard, partition
            )
            update = ledger.close_batch(plan, manifest)
            for write in update.writes:
                deliveries.append(self._table.put(write))
                await reach("dataset.member_sent")
            self._finish(shard_key, update)
            await reach("dataset.batch_closed")
            self._report_closed(shard_key, plan)
        return deliveries

    def _finish(self, shard_key: ShardKey, update: ShardUpdate) -> None:
        """Free the memory of entries that an update has settled, and report the update."""
        self._waiting.changed[shard_key] = None
        self._metrics.report_update(shard_key, update)
        for key, value in update.shrunk:
            self._table.cache(key, value)

    def _report_closed(self, shard_key: ShardKey, plan: BatchPlan) -> None:
        model, shard = shard_key
        self._metrics.count_batch(model)
        self._metrics.set_newest_batch(shard_key, plan.members)
        self._log.info(
            "batch closed", model=model, shard=shard, number=plan.number, batch=plan.batch_id
        )


def _decide(ledger: Ledger, gathered: _Gathered) -> ShardUpdate:
    """Ask the ledger for the effects of an event."""
    match gathered.event:
        case FeedbackScored() as event:
            return ledger.decide(event, gathered.position, gathered.logged_at, gathered.traceparent)
        case WithdrawalRequested() as request:
            return ledger.withdraw(request, gathered.position, gathered.logged_at)
        case WaitEnded():
            return ledger.advance_clock(gathered.logged_at)
