"""Queue of waiting training examples under quotas: corrections first, then the order of the log.

Quotas limit the examples of one user and of one conversation in a batch, and of one user over a
window of batches. Examples over quota stay in the queue. Trusted users have no quota.
"""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.curation import trusted_contributors
from shared.config.curation import CurationSettings
from shared.events import HeldBack, QuotaLimit
from shared.storage.dataset_entries import DatasetEntry


@dataclass
class _ContributorQueue:
    """Waiting entries of one contributor, by feedback ID."""

    corrections: dict[str, DatasetEntry] = field(default_factory=dict)
    approved: dict[str, DatasetEntry] = field(default_factory=dict)
    conversations: Counter[str] = field(default_factory=Counter)
    within_conversation_limits: int = 0
    """Number that could enter a batch if only conversations were limited."""

    def __len__(self) -> int:
        return len(self.corrections) + len(self.approved)

    def section_of(self, entry: DatasetEntry) -> dict[str, DatasetEntry]:
        """The part of the queue that holds `entry`."""
        return self.corrections if entry.reason == "correction" else self.approved


class QuotaQueue:
    """A queue that always knows an upper bound on the examples its next batch can have.

    The cost of adding and removing is constant; selecting costs as much as waits.
    """

    def __init__(self, policy: CurationSettings) -> None:
        self._per_user = policy.examples_per_user
        self._per_conversation = policy.examples_per_conversation
        self._per_window = policy.window_quota
        self._trusted = trusted_contributors(policy)
        self._recent: deque[Counter[str]] = deque(maxlen=policy.share_window)
        self._used: Counter[str] = Counter()
        self._queues: dict[str, _ContributorQueue] = {}
        self._conversations: Counter[str] = Counter()
        self._selectable_by_contributor = 0
        self._selectable_by_conversation = 0
        self.size = 0

    @property
    def max_selectable(self) -> int:
        """Upper bound on the number of examples that `select` returns. Exact unless users at their
        quota share a conversation with others.
        """
        return min(self._selectable_by_contributor, self._selectable_by_conversation)

    def add(self, entry: DatasetEntry) -> None:
        """Add a waiting entry. The order of additions does not matter."""
        queue = self._queues.setdefault(_contributor_of(entry), _ContributorQueue())
        self._selectable_by_contributor -= self._selectable(entry, queue)
        queue.section_of(entry)[entry.feedback_id] = entry
        queue.within_conversation_limits += self._within_conversation_limit(
            queue.conversations, entry
        )
        self._selectable_by_conversation += self._within_conversation_limit(
            self._conversations, entry
        )
        if entry.conversation is not None:
            queue.conversations[entry.conversation] += 1
            self._conversations[entry.conversation] += 1
        self._selectable_by_contributor += self._selectable(entry, queue)
        self.size += 1

    def remove(self, entry: DatasetEntry) -> None:
        """Remove an entry. Raises KeyError if it does not wait."""
        queue = self._queues[_contributor_of(entry)]
        self._selectable_by_contributor -= self._selectable(entry, queue)
        del queue.section_of(entry)[entry.feedback_id]
        if entry.conversation is not None:
            _decrease(queue.conversations, entry.conversation)
            _decrease(self._conversations, entry.conversation)
        queue.within_conversation_limits -= self._within_conversation_limit(
            queue.conversations, entry
        )
        self._selectable_by_conversation -= self._within_conversation_limit(
            self._conversations, entry
        )
        self._selectable_by_contributor += self._selectable(entry, queue)
        self.size -= 1
        if not len(queue):
            del self._queues[_contributor_of(entry)]

    def select(self, count: int) -> list[DatasetEntry]:
        """Return the next examples, at most `count`, within all quotas: corrections, then approved
        answers, each in the order of the log.
        """
        return list(islice(self._within_limits(), count))

    def held_back(self) -> tuple[HeldBack, ...]:
        """Count the examples over quota by the limit that defers them. Their sum is the size of the
        queue less `max_selectable`. The cost grows with the contributors and conversations.
        """
        examples, sources = Counter[QuotaLimit](), Counter[QuotaLimit]()
        for contributor, queue in self._queues.items():
            quota = self._quota(contributor)
            if (over := queue.within_conversation_limits - quota) > 0:
                limit: QuotaLimit = "examples_per_user" if quota == self._per_user else "user_share"
                examples[limit] += over
                sources[limit] += 1
        if rest := self.size - self.max_selectable - examples.total():
            examples["examples_per_conversation"] = rest
            sources["examples_per_conversation"] = sum(
                count > self._per_conversation for count in self._conversations.values()
            )
        return tuple(
            HeldBack(limit=limit, examples=count, sources=sources[limit])
            for limit, count in examples.items()
        )

    def record_batch(self, entries: Iterable[DatasetEntry | CachedEntry]) -> None:
        """Count a batch's training examples, removed before, towards each contributor's share until
        the batch leaves the window.
        """
        leaving = self._recent[0] if len(self._recent) == self._recent.maxlen else Counter[str]()
        joining = Counter(_contributor_of(entry) for entry in entries)
        self._recent.append(joining)
        for contributor in leaving | joining:
            queue = self._queues.get(contributor)
            before = self._quota(contributor)
            self._used[contributor] += joining[contributor] - leaving[contributor]
            if not self._used[contributor]:
                del self._used[contributor]
            if queue:
                self._adjust_selectable(queue, before, self._quota(contributor))

    def forget_contributor(self, contributor: str) -> None:
        """Stop counting a contributor's examples in earlier batches."""
        queue = self._queues.get(contributor)
        before = self._quota(contributor)
        for batch in self._recent:
            del batch[contributor]
        del self._used[contributor]
        if queue:
            self._adjust_selectable(queue, before, self._quota(contributor))

    def _within_limits(self) -> Iterator[DatasetEntry]:
        corrections = sorted(
            (entry for queue in self._queues.values() for entry in queue.corrections.values()),
            key=_offset,
        )
        approved = sorted(
            (entry for queue in self._queues.values() for entry in queue.approved.values()),
            key=_offset,
        )
        users: Counter[str] = Counter()
        conversations: Counter[str] = Counter()
        for entry in (*corrections, *approved):
            contributor = _contributor_of(entry)
            if users[contributor] < self._quota(contributor) and self._within_conversation_limit(
                conversations, entry
            ):
                users[contributor] += 1
                if entry.conversation is not None:
                    conversations[entry.conversation] += 1
                yield entry

    def _quota(self, contributor: str) -> int:
        """Maximum number of a contributor's examples in the next batch."""
        if contributor in self._trusted:
            return sys.maxsize
        return max(0, min(self._per_user, self._per_window - self._used[contributor]))

    def _selectable(self, entry: DatasetEntry, queue: _ContributorQueue) -> int:
        return min(queue.within_conversation_limits, self._quota(_contributor_of(entry)))

    def _adjust_selectable(self, queue: _ContributorQueue, before: int, after: int) -> None:
        """Account for a changed quota of a contributor."""
        available = queue.within_conversation_limits
        self._selectable_by_contributor += min(available, after) - min(available, before)

    def _within_conversation_limit(self, conversations: Counter[str], entry: DatasetEntry) -> bool:
        return (
            entry.conversation is None or conversations[entry.conversation] < self._per_conversation
        )


def _contributor_of(entry: DatasetEntry | CachedEntry) -> str:
    """Contributor of an entry. An example without user and conversation has a contributor of its
    own.
    """
    contributor = entry.influence if isinstance(entry, DatasetEntry) else entry.contributor
    return contributor or f"event:{entry.feedback_id}"


def _offset(entry: DatasetEntry) -> int:
    return entry.source.offset


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
