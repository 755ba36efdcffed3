"""Metrics of the dataset service: counters of decisions and batches, and gauges of each shard."""

from collections.abc import Collection, Mapping

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.feedback_mix import MONITORED_KINDS
from services.dataset.ledger.recovery import ShardKey
from services.dataset.ledger.results import ShardStatus, ShardUpdate
from shared.config.model_file import ModelFile
from shared.logs import Log
from shared.messaging.topics import FEEDBACK_SCORED
from shared.observability.metrics import Metrics
from shared.storage.dataset_entries import DatasetEntry

SHARD_METRICS = (
    "ratchet_dataset_pending_examples",
    "ratchet_dataset_held_back_examples",
    "ratchet_dataset_feedback_jump",
    "ratchet_dataset_mostly_dropped",
    "ratchet_dataset_newest_batch_timestamp_seconds",
)
"""Gauges of a shard, which another worker may own after a rebalance."""


class DatasetMetrics:
    """Exports the metrics of one worker, and logs the alarms on the mix of feedback."""

    def __init__(self, metrics: Metrics, log: Log, models: Mapping[str, ModelFile]) -> None:
        self._metrics = metrics
        self._log = log
        self._alarms: set[tuple[ShardKey, str]] = set()
        self._dropping: set[ShardKey] = set()
        metrics.init_series("ratchet_dead_letters_total", topic=FEEDBACK_SCORED)
        for name, file in models.items():
            metrics.init_series("ratchet_dataset_batches_total", model=name)
            metrics.set(
                "ratchet_dataset_batch_size",
                max(file.curation.batch_size, file.curation.pool or 0),
                model=name,
            )

    def reset_shards(self) -> None:
        """Remove the gauges of all shards."""
        self._alarms.clear()
        self._dropping.clear()
        for name in SHARD_METRICS:
            self._metrics.remove_series(name)

    def count_dead_letter(self, topic: str) -> None:
        self._metrics.count("ratchet_dead_letters_total", topic=topic)

    def count_withdrawal(self, model: str) -> None:
        self._metrics.count("ratchet_dataset_withdrawals_total", model=model)

    def count_batch(self, model: str) -> None:
        self._metrics.count("ratchet_dataset_batches_total", model=model)

    def report_update(self, shard_key: ShardKey, update: ShardUpdate) -> None:
        """Count the decision of an update, if any; export the gauges and alarms of its shard."""
        if update.counted is not None:
            decision, reason = update.counted
            self._metrics.count(
                "ratchet_dataset_decisions_total",
                model=shard_key[0],
                decision=decision,
                reason=reason,
            )
        self._set_alarms(shard_key, update.status)
        self._set_drop_alarm(shard_key, update.status)
        self._set_status(shard_key, update.status)

    def _set_status(self, shard_key: ShardKey, status: ShardStatus) -> None:
        """Export the gauges of a shard."""
        model, shard = shard_key
        self._metrics.set(
            "ratchet_dataset_pending_examples", status.pending, model=model, shard=str(shard)
        )
        for limit, count in status.deferred.items():
            self._metrics.set(
                "ratchet_dataset_held_back_examples",
                count,
                model=model,
                shard=str(shard),
                reason=limit,
            )

    def _set_alarms(self, shard_key: ShardKey, status: ShardStatus) -> None:
        """Raise or end the alarm for each kind of feedback whose share has spiked."""
        model, shard = shard_key
        for kind in MONITORED_KINDS:
            alarm, raised = (shard_key, kind), kind in status.spiked_kinds
            if raised == (alarm in self._alarms):
                continue
            self._alarms ^= {alarm}
            self._metrics.set(
                "ratchet_dataset_feedback_jump",
                int(raised),
                model=model,
                shard=str(shard),
                kind=kind,
            )
            self._log.warning(
                "share of a feedback kind has spiked"
                if raised
                else "share of a feedback kind is back to normal",
                model=model,
                kind=kind,
            )

    def _set_drop_alarm(self, shard_key: ShardKey, status: ShardStatus) -> None:
        """Raise or end the alarm on a shard that drops most of its feedback."""
        raised = status.main_loss is not None
        if raised == (shard_key in self._dropping):
            return
        self._dropping ^= {shard_key}
        model, shard = shard_key
        self._metrics.set(
            "ratchet_dataset_mostly_dropped", int(raised), model=model, shard=str(shard)
        )
        if raised:
            self._log.warning(
                "most of the feedback is dropped", model=model, shard=shard, reason=status.main_loss
            )
        else:
            self._log.info("most of the feedback is kept again", model=model, shard=shard)

    def set_newest_batch(
        self, shard_key: ShardKey, members: Collection[DatasetEntry | CachedEntry]
    ) -> None:
        """Export the time at which the newest member of the newest batch was logged."""
        model, shard = shard_key
        if members:
            self._metrics.set(
                "ratchet_dataset_newest_batch_timestamp_seconds",
                max(member.logged_at for member in members).timestamp(),
                model=model,
                shard=str(shard),
            )
