"""What waits for a batch: training examples, those of newcomers longer than others, and what rides
along with them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush

from services.dataset.ledger.entry_row import Card
from services.dataset.ledger.new_user_hold import Newcomers
from services.dataset.ledger.quota_queue import Waiting
from shared.config.model_file import Curation
from shared.storage.dataset_entries import Entry


class Pending:
    """Adding and removing cost the same however much waits."""

    def __init__(self, policy: Curation) -> None:
        self._policy = policy
        self._waiting = Waiting(policy)
        self._newcomers = Newcomers()
        self._riding: dict[str, Entry] = {}
        self._oldest: list[tuple[datetime, str]] = []
        self._training: set[str] = set()

    def __len__(self) -> int:
        """How many training examples wait."""
        return len(self._training)

    @property
    def held_back(self) -> dict[str, int]:
        """How many training examples could not enter a batch now, however large, by what holds them
        back.
        """
        return {"limits": self._waiting.size - self._waiting.most, "newcomer": len(self._newcomers)}

    @property
    def riding(self) -> list[Entry]:
        """What enters the next batch besides training examples: negatives, then what is held out,
        each in the order of the log.
        """
        return sorted(
            self._riding.values(),
            key=lambda entry: (entry.decision != "negative", entry.source.offset),
        )

    def add(self, entry: Entry) -> None:
        """The order in which entries are added does not matter."""
        if entry.decision != "training":
            self._riding[entry.feedback_id] = entry
            return
        self._training.add(entry.feedback_id)
        if entry.eligible_at is None:
            self._waiting.add(entry)
        else:
            self._newcomers.add(entry, entry.eligible_at)
        if self._policy.longest_wait_hours is not None:
            heappush(self._oldest, (entry.logged_at, entry.feedback_id))

    def remove(self, entry: Entry) -> None:
        """Take an entry out. KeyError when it does not wait."""
        if entry.decision != "training":
            del self._riding[entry.feedback_id]
            return
        self._training.remove(entry.feedback_id)
        if entry in self._newcomers:
            self._newcomers.remove(entry)
        else:
            self._waiting.remove(entry)

    def wake(self, now: datetime) -> None:
        """The examples of newcomers whose time has come wait as others do."""
        for entry in self._newcomers.due(now):
            self._waiting.add(entry)

    def candidates(self, now: datetime) -> list[Entry]:
        """Those of which a batch is made if the log's clock is at `now`; none while it is too early
        for one.
        """
        wanted = max(self._policy.batch_size, self._policy.pool or 0)
        least = (
            min(wanted, self._policy.smallest_batch) if self._has_waited_too_long(now) else wanted
        )
        if self._waiting.most < least:
            return []
        found = self._waiting.choose(wanted)
        return found if len(found) >= least else []

    def enter(self, training: Sequence[Entry]) -> None:
        """These examples made a batch, and with them all that rode along."""
        for entry in training:
            self.remove(entry)
        self._riding.clear()
        self.trained(training)

    def trained(self, entries: Iterable[Entry | Card]) -> None:
        """These entries, taken out before, made a batch: it counts for the share of each user until
        it leaves the window.
        """
        self._waiting.trained(entries)

    def forget(self, influence: str) -> None:
        """Let what a user had in the batches before count no more."""
        self._waiting.forget(influence)

    def _has_waited_too_long(self, now: datetime) -> bool:
        """Whether an example has waited longer than the longest wait."""
        if self._policy.longest_wait_hours is None:
            return False
        while self._oldest and self._oldest[0][1] not in self._training:
            heappop(self._oldest)
        return bool(self._oldest) and now - self._oldest[0][0] > timedelta(
            hours=self._policy.longest_wait_hours
        )
