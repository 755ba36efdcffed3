"""Publication of a closed batch: snapshot, record in the table, announcement, in this order."""

import asyncio
from collections.abc import Iterable

from services.dataset.entry_table import EntryTable
from services.dataset.event_publisher import EventPublisher
from services.dataset.ledger.results import BatchPlan, TableWrite
from services.dataset.snapshot.announcement import batch_ready_event
from services.dataset.snapshot.writer import write_snapshot
from shared.config.model_file import ModelFile
from shared.events import Artefact
from shared.failpoints import reach
from shared.logs import Log
from shared.messaging.topics import TRAINING_BATCHES
from shared.observability.trace_context import traceparent_for_batch
from shared.observability.tracing import Tracing
from shared.service.retry import RetryPolicy
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, closed_batch_key
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import BatchManifest, read_manifest

# A stale worker has some 2,000 fetched events from which it could write older entries, and a batch
# has 50 or more of them.
_BATCH_RECORDS_KEPT = 200


class BatchPublisher:
    """Writes and announces batches. Every step can be repeated: it writes the same objects, the
    same record and the same event.
    """

    def __init__(
        self,
        table: EntryTable,
        store: ObjectStore,
        events: EventPublisher,
        retry: RetryPolicy,
        log: Log,
        tracing: Tracing,
    ) -> None:
        self._table = table
        self._store = store
        self._events = events
        self._retry = retry
        self._log = log
        self._tracing = tracing

    async def publish(
        self, plan: BatchPlan, model_file: ModelFile, shard: int, partition: int
    ) -> Artefact:
        """Write and announce a batch, and return its manifest. Raises Unavailable after all
        attempts.
        """
        batch = await self._record(plan, model_file, shard, partition)
        await self.announce(batch, plan.members)
        return batch.manifest

    async def announce(self, batch: ClosedBatch, entries: Iterable[DatasetEntry]) -> None:
        """Announce a batch, some of whose members are among `entries`. A repeated announcement is
        harmless: the event is a function of the batch's record and manifest.
        """
        manifest = await self._retry.call(
            lambda: asyncio.to_thread(self.read_manifest, batch.manifest), self._log
        )
        event = batch_ready_event(manifest, batch.manifest, batch.occurred_at)
        members = frozenset(manifest.feedback_ids)
        links = [
            entry.traceparent
            for entry in entries
            if entry.traceparent and entry.feedback_id in members
        ]
        with self._tracing.span(
            "batch", traceparent=traceparent_for_batch(event.batch_id), links=links
        ) as span:
            span.set_attributes(
                model=event.model, batch=event.batch_id, number=event.number, members=len(members)
            )
            await self._events.publish(TRAINING_BATCHES, batch.model, event, span.headers)
        await reach("dataset.announced")

    def read_manifest(self, artefact: Artefact) -> BatchManifest:
        """Read and verify a manifest. Blocks."""
        return read_manifest(self._store, artefact)

    async def _record(
        self, plan: BatchPlan, model_file: ModelFile, shard: int, partition: int
    ) -> ClosedBatch:
        """Write the snapshot, then the record that fixes the batch for good, before it is
        announced.
        """
        manifest = await self._retry.call(
            lambda: asyncio.to_thread(write_snapshot, self._store, plan, model_file, shard),
            self._log,
        )
        await reach("dataset.manifest_written")
        batch = ClosedBatch(
            model=model_file.model,
            shard=shard,
            partition=partition,
            number=plan.number,
            size=len(plan.members),
            closed=plan.closed,
            occurred_at=plan.occurred_at,
            manifest=manifest,
        )
        await self._table.put(TableWrite(partition, batch.key, batch.encode()))
        if plan.number >= _BATCH_RECORDS_KEPT:
            oldest = plan.number - _BATCH_RECORDS_KEPT
            await self._table.delete(partition, closed_batch_key(batch.model, shard, oldest))
        await reach("dataset.batch_recorded")
        return batch
