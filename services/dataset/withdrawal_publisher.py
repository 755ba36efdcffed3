"""Publication of a withdrawal: marks next to the snapshots, then the events that announce it."""

import asyncio
from functools import partial

from services.dataset import SOURCE
from services.dataset.ledger.results import WithdrawalPlan
from services.dataset.snapshot.withdrawal import mark_examples, withdrawal_events
from shared.events import Event
from shared.logs import Log
from shared.messaging.bus import Producer, publish
from shared.messaging.topics import DATASET_WITHDRAWALS
from shared.observability.health import Health
from shared.service.retry import RetryPolicy
from shared.storage.object_store import ObjectStore


class WithdrawalPublisher:
    """Marks and announces a user's examples. Both can be repeated without a different result."""

    def __init__(
        self,
        store: ObjectStore,
        producer: Producer,
        retry: RetryPolicy,
        log: Log,
        health: Health,
    ) -> None:
        self._store = store
        self._producer = producer
        self._retry = retry
        self._log = log
        self._health = health

    async def publish(self, plan: WithdrawalPlan) -> None:
        """Mark the user's examples in all snapshots of the shard, and announce them. Raises
        Unavailable after all attempts.
        """
        request = plan.request
        marked = await self._retry.call(
            lambda: asyncio.to_thread(
                mark_examples,
                self._store,
                plan.newest_manifest,
                request.user_id,
                self._record_progress,
            ),
            self._log,
        )
        if marked.unread:
            self._log.warning(
                "snapshots not searched for withdrawn examples: objects unreadable",
                model=request.model,
                shard=request.shard,
                objects=marked.unread,
            )
        for event in withdrawal_events(request, plan.waiting, marked):
            await self._retry.call(partial(self._publish, request.model, event), self._log)
        self._log.info(
            "withdrawn",
            forgotten=request.forgotten,
            model=request.model,
            shard=request.shard,
            waiting=plan.waiting,
            batches=len(marked.batches),
        )

    async def _publish(self, model: str, event: Event) -> None:
        await publish(self._producer, DATASET_WITHDRAWALS, model, event, SOURCE)

    def _record_progress(self) -> None:
        # The search may take longer than the stall limit of the liveness probe.
        self._health.record_progress(busy=True)
