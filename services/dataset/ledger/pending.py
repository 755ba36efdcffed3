"""What waits for a batch: training examples, those of newcomers longer than others, and what rides
along with them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.new_user_delay import NewUserDelay
from services.dataset.ledger.quota_queue import QuotaQueue
from shared.config.model_file import CurationSettings
from shared.storage.dataset_entries import DatasetEntry


class PendingExamples:
    """Adding and removing cost the same however much waits."""

    def __init__(self, policy: CurationSettings) -> None:
        self._policy = policy
        self._quota_queue = QuotaQueue(policy)
        self._new_users = NewUserDelay()
        self._attached: dict[str, DatasetEntry] = {}
        self._by_age: list[tuple[datetime, str]] = []
        self._training_ids: set[str] = set()

    def __len__(self) -> int:
        """How many training examples wait."""
        return len(self._training_ids)

    @property
    def deferred(self) -> dict[str, int]:
        """How many training examples could not enter a batch now, however large, by what holds them
        back.
        """
        return {
            "limits": self._quota_queue.size - self._quota_queue.max_selectable,
            "newcomer": len(self._new_users),
        }

    @property
    def attached(self) -> list[DatasetEntry]:
        """What enters the next batch besides training examples: negatives, then what is held out,
        each in the order of the log.
        """
        return sorted(
            self._attached.values(),
            key=lambda entry: (entry.decision != "negative", entry.source.offset),
        )

    def add(self, entry: DatasetEntry) -> None:
        """The order in which entries are added does not matter."""
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

    def remove(self, entry: DatasetEntry) -> None:
        """Take an entry out. KeyError when it does not wait."""
        if entry.decision != "training":
            del self._attached[entry.feedback_id]
            return
        self._training_ids.remove(entry.feedback_id)
        if entry in self._new_users:
            self._new_users.remove(entry)
        else:
            self._quota_queue.remove(entry)

    def release_new_users(self, now: datetime) -> None:
        """The examples of newcomers whose time has come wait as others do."""
        for entry in self._new_users.due(now):
            self._quota_queue.add(entry)

    def batch_candidates(self, now: datetime) -> list[DatasetEntry]:
        """Those of which a batch is made if the log's clock is at `now`; none while it is too early
        for one.
        """
        wanted = max(self._policy.batch_size, self._policy.pool or 0)
        least = min(wanted, self._policy.smallest_batch) if self._max_wait_exceeded(now) else wanted
        if self._quota_queue.max_selectable < least:
            return []
        found = self._quota_queue.select(wanted)
        return found if len(found) >= least else []

    def remove_batch(self, training: Sequence[DatasetEntry]) -> None:
        """These examples made a batch, and with them all that rode along."""
        for entry in training:
            self.remove(entry)
        self._attached.clear()
        self.record_batch(training)

    def record_batch(self, entries: Iterable[DatasetEntry | CachedEntry]) -> None:
        """These entries, taken out before, made a batch: it counts for the share of each user until
        it leaves the window.
        """
        self._quota_queue.record_batch(entries)

    def forget_contributor(self, contributor: str) -> None:
        """Let what a user had in the batches before count no more."""
        self._quota_queue.forget_contributor(contributor)

    def _max_wait_exceeded(self, now: datetime) -> bool:
        """Whether an example has waited longer than the longest wait."""
        if self._policy.longest_wait_hours is None:
            return False
        while self._by_age and self._by_age[0][1] not in self._training_ids:
            heappop(self._by_age)
        return bool(self._by_age) and now - self._by_age[0][0] > timedelta(
            hours=self._policy.longest_wait_hours
        )
