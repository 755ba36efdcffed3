"""Reports of the examples that wait, for the registry's pages: at most one per shard and call, and
only after a change.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

from services.dataset import SOURCE
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import ShardKey
from shared.config.models import Models
from shared.events import WaitingReported, WaitingStatus
from shared.identity import identity
from shared.messaging.bus import Producer, publish
from shared.messaging.topics import DATASET_WAITING

MAX_REPORTS = 20
"""Reports of one call, which bounds the load on the registry; other shards follow with the next."""


class WaitingReports:
    """Publishes what waits in the shards of one worker that are `changed`, in their order there."""

    def __init__(self, models: Models, producer: Producer) -> None:
        self._models = models
        self._producer = producer
        self.changed: dict[ShardKey, None] = {}
        self._reported: dict[ShardKey, WaitingStatus] = {}

    def reset(self, owned: Iterable[ShardKey]) -> None:
        """Report all shards of a new assignment, and none that another worker owns now."""
        self._reported.clear()
        self.changed = dict.fromkeys(owned)

    def collect(self, ledgers: Mapping[ShardKey, Ledger]) -> dict[ShardKey, WaitingStatus]:
        """Return what to publish next: the shards that changed first."""
        chosen = list(islice(self.changed, MAX_REPORTS))
        for shard_key in chosen:
            del self.changed[shard_key]
        statuses = {key: ledgers[key].waiting_status for key in chosen if key in ledgers}
        return {
            key: status for key, status in statuses.items() if status != self._reported.get(key)
        }

    async def publish(self, statuses: Mapping[ShardKey, WaitingStatus], now: datetime) -> None:
        """Publish reports. Raises BusUnavailable; the rest then comes with the next `collect`."""
        missing = dict.fromkeys(statuses)
        try:
            for (model, shard), status in statuses.items():
                event = WaitingReported(
                    event_id=identity("waiting reported", model, shard, now.isoformat()),
                    occurred_at=now,
                    model=model,
                    shard=shard,
                    status=status,
                )
                key = self._models.get(model).key_of(shard)
                await publish(self._producer, DATASET_WAITING, key, event, SOURCE)
                self._reported[model, shard] = status
                del missing[model, shard]
        finally:
            self.changed |= missing
