"""Entries that wait for a batch: training examples, those of new users, and the negatives and
held-out examples attached to the next batch.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.new_user_delay import NewUserDelay
from services.dataset.ledger.quota_queue import QuotaQueue
from shared.config.curation import CurationSettings
from shared.events import WaitingStatus
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.snapshots import Example


class PendingExamples:
    """Waiting entries of a shard. Adding and removing cost the same whatever their number."""

    def __init__(self, policy: CurationSettings) -> None:
        self._policy = policy
        self._quota_queue = QuotaQueue(policy)
        self._new_users = NewUserDelay()
        self._attached: dict[str, DatasetEntry] = {}
        self._by_age: list[tuple[datetime, str]] = []
        self._training_ids: set[str] = set()
        self._sizes: dict[str, tuple[str | None, int]] = {}
        self._waiting_bytes: Counter[str | None] = Counter()

    def __len__(self) -> int:
        """Number of training examples that wait."""
        return len(self._training_ids)

    @property
    def deferred(self) -> dict[str, int]:
        """Number of training examples that could not enter a batch now, whatever its size, by the
        limit that defers them.
        """
        over_limits = self._quota_queue.size - self._quota_queue.max_selectable
        return {"limits": over_limits, "newcomer": len(self._new_users)}

    @property
    def status(self) -> WaitingStatus:
        """Status of the next batch, with a cost that grows with the contributors."""
        hours, oldest = self._policy.longest_wait_hours, self._oldest_time()
        return WaitingStatus(
            needed=max(self._policy.batch_size, self._policy.pool or 0),
            usable=self._quota_queue.max_selectable,
            held_back=self._quota_queue.held_back(),
            new_users=len(self._new_users),
            smallest_batch=self._policy.smallest_batch,
            smaller_batch_at=oldest + timedelta(hours=hours) if hours and oldest else None,
        )

    @property
    def attached(self) -> list[DatasetEntry]:
        """Entries that enter the next batch with its training examples: negatives, then held-out
        examples, each in the order of the log.
        """
        return sorted(
            self._attached.values(),
            key=lambda entry: (entry.decision != "negative", entry.source.offset),
        )

    def add(self, entry: DatasetEntry) -> None:
        """Add a waiting entry. The order of additions does not matter."""
        size = _size_of(entry.example)
        self._sizes[entry.feedback_id] = entry.influence, size
        self._waiting_bytes[entry.influence] += size
        if entry.decision != "training":
            self._attached[entry.feedback_id] = entry
            return
        self._training_ids.add(entry.feedback_id)
        if entry.eligible_at is None:
            self._quota_queue.add(entry)
        else:
            self._new_users.add(entry, entry.eligible_at)
        if self._policy.longest_wait_hours is not None:
            heappush(self._by_age, (entry.logged_at, entry.feedback_id))

    def has_room(self, contributor: str | None, example: Example) -> bool:
        """True if one more example of a contributor may wait. The first one always may. Examples
        without a contributor share the room of one.
        """
        waiting = self._waiting_bytes[contributor]
        limit = self._policy.waiting_bytes_per_user
        return not waiting or waiting + _size_of(example) <= limit

    def remove(self, entry: DatasetEntry) -> None:
        """Remove a waiting entry. Raises KeyError if it does not wait."""
        self._forget_size(entry.feedback_id)
        if entry.decision != "training":
            del self._attached[entry.feedback_id]
            return
        self._training_ids.remove(entry.feedback_id)
        if entry in self._new_users:
            self._new_users.remove(entry)
        else:
            self._quota_queue.remove(entry)

    def release_new_users(self, now: datetime) -> None:
        """Queue the examples of new users whose delay has ended by `now`."""
        for entry in self._new_users.due(now):
            self._quota_queue.add(entry)

    def batch_candidates(self, now: datetime) -> list[DatasetEntry]:
        """Training examples to form a batch from at log time `now`; empty if it is too early."""
        wanted = max(self._policy.batch_size, self._policy.pool or 0)
        minimum = (
            min(wanted, self._policy.smallest_batch) if self._max_wait_exceeded(now) else wanted
        )
        if self._quota_queue.max_selectable < minimum:
            return []
        selected = self._quota_queue.select(wanted)
        return selected if len(selected) >= minimum else []

    def remove_batch(self, training: Sequence[DatasetEntry]) -> None:
        """Remove the training examples of a batch, and all entries attached to it."""
        for entry in training:
            self.remove(entry)
        for feedback_id in self._attached:
            self._forget_size(feedback_id)
        self._attached.clear()
        self.record_batch(training)

    def record_batch(self, entries: Iterable[DatasetEntry | CachedEntry]) -> None:
        """Count a batch's training examples towards each contributor's share of the window."""
        self._quota_queue.record_batch(entries)

    def forget_contributor(self, contributor: str) -> None:
        """Stop counting a contributor's examples in earlier batches."""
        self._quota_queue.forget_contributor(contributor)

    def _forget_size(self, feedback_id: str) -> None:
        contributor, size = self._sizes.pop(feedback_id)
        self._waiting_bytes[contributor] -= size
        if not self._waiting_bytes[contributor]:
            del self._waiting_bytes[contributor]

    def _max_wait_exceeded(self, now: datetime) -> bool:
        """True if an example has waited longer than the longest allowed wait."""
        hours, oldest = self._policy.longest_wait_hours, self._oldest_time()
        return hours is not None and oldest is not None and now - oldest > timedelta(hours=hours)

    def _oldest_time(self) -> datetime | None:
        """Time of the oldest waiting example; None without one, or if batches never close early."""
        while self._by_age and self._by_age[0][1] not in self._training_ids:
            heappop(self._by_age)
        return self._by_age[0][0] if self._by_age else None


def _size_of(example: Example | None) -> int:
    """Return the bytes of the texts of an example."""
    if example is None:
        return 0
    texts = (
        *(message.content for message in example.messages),
        example.answer,
        example.rejected or "",
        example.comment or "",
    )
    return sum(len(text.encode()) for text in texts)
