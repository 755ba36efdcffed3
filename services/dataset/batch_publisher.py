"""Publication of a closed batch: snapshot, record in the table, announcement, in this order."""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from services.dataset import SOURCE
from services.dataset.entry_table import EntryTable
from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.writer import write_snapshot
from shared.config.model_file import ModelFile
from shared.events import Artefact, BatchReady
from shared.failpoints import reach
from shared.logs import Log
from shared.messaging.bus import Producer, publish
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
        producer: Producer,
        retry: RetryPolicy,
        log: Log,
        tracing: Tracing,
    ) -> None:
        self._table = table
        self._store = store
        self._producer = producer
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
            await self._retry.call(
                lambda: publish(
                    self._producer, TRAINING_BATCHES, batch.model, event, SOURCE, span.headers
                ),
                self._log,
            )
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
        content = await asyncio.to_thread(snapshot_content, plan, model_file, shard)
        manifest = await self._retry.call(
            lambda: asyncio.to_thread(write_snapshot, self._store, content), self._log
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
        await self._table.put_batch(batch)
        if plan.number >= _BATCH_RECORDS_KEPT:
            oldest = plan.number - _BATCH_RECORDS_KEPT
            await self._table.delete(partition, closed_batch_key(batch.model, shard, oldest))
        await reach("dataset.batch_recorded")
        return batch


def batch_ready_event(
    manifest: BatchManifest, artefact: Artefact, occurred_at: datetime
) -> BatchReady:
    """The event that announces a batch: a function of its manifest, which `artefact` names, and its
    time, so that a repeated announcement is the same.
    """
    return BatchReady(
        event_id=manifest.batch_id,
        occurred_at=occurred_at,
        model=manifest.model,
        model_digest=manifest.model_digest,
        batch_id=manifest.batch_id,
        shard=manifest.shard,
        number=manifest.number,
        lane=manifest.lane,
        manifest=artefact,
        counts=manifest.counts,
        offsets=manifest.offsets,
        hyperparameters=manifest.hyperparameters,
    )
