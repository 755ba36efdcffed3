"""The training examples that wait for their batch: corrections first, then in the order of the log,
few of each user and conversation.

Limits hold one user's, and one conversation's, influence on a batch and over the batches before it.
What they hold back keeps waiting.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from services.dataset.ledger.cached_entry import CachedEntry
from shared.config.model_file import CurationSettings
from shared.storage.dataset_entries import DatasetEntry


@dataclass
class _ContributorQueue:
    """What waits of one user, by feedback id."""

    corrections: dict[str, DatasetEntry] = field(default_factory=dict)
    approved: dict[str, DatasetEntry] = field(default_factory=dict)
    conversations: Counter[str] = field(default_factory=Counter)
    within_conversation_limits: int = 0
    """How many could enter a batch if only conversations were limited."""

    def __len__(self) -> int:
        return len(self.corrections) + len(self.approved)


class QuotaQueue:
    """A queue that knows at any time how many of its examples can be in the next batch at most.

    Adding and removing cost the same however many wait; choosing, as much as waits.
    """

    def __init__(self, policy: CurationSettings) -> None:
        self._per_user = policy.examples_per_user
        self._per_conversation = policy.examples_per_conversation
        self._per_window = max(1, int(policy.user_share * policy.share_window * policy.batch_size))
        self._recent: deque[Counter[str]] = deque(maxlen=policy.share_window)
        self._used: Counter[str] = Counter()
        self._queues: dict[str, _ContributorQueue] = {}
        self._conversations: Counter[str] = Counter()
        self._selectable_by_contributor = 0
        self._selectable_by_conversation = 0
        self.size = 0

    @property
    def max_selectable(self) -> int:
        """At least as many as `choose` can give. The same, unless conversations are shared by users
        who are at their limits.
        """
        return min(self._selectable_by_contributor, self._selectable_by_conversation)

    def add(self, entry: DatasetEntry) -> None:
        """The order in which entries are added does not matter."""
        line = self._queues.setdefault(_contributor_of(entry), _ContributorQueue())
        self._selectable_by_contributor -= self._selectable(entry, line)
        (line.corrections if entry.reason == "correction" else line.approved)[entry.feedback_id] = (
            entry
        )
        line.within_conversation_limits += self._within_conversation_limit(
            line.conversations, entry
        )
        self._selectable_by_conversation += self._within_conversation_limit(
            self._conversations, entry
        )
        if entry.conversation is not None:
            line.conversations[entry.conversation] += 1
            self._conversations[entry.conversation] += 1
        self._selectable_by_contributor += self._selectable(entry, line)
        self.size += 1

    def remove(self, entry: DatasetEntry) -> None:
        """Take an entry out. KeyError when it does not wait."""
        line = self._queues[_contributor_of(entry)]
        self._selectable_by_contributor -= self._selectable(entry, line)
        del (line.corrections if entry.reason == "correction" else line.approved)[entry.feedback_id]
        if entry.conversation is not None:
            _decrease(line.conversations, entry.conversation)
            _decrease(self._conversations, entry.conversation)
        line.within_conversation_limits -= self._within_conversation_limit(
            line.conversations, entry
        )
        self._selectable_by_conversation -= self._within_conversation_limit(
            self._conversations, entry
        )
        self._selectable_by_contributor += self._selectable(entry, line)
        self.size -= 1
        if not len(line):
            del self._queues[_contributor_of(entry)]

    def select(self, count: int) -> list[DatasetEntry]:
        """The `count` examples that are next, or what the limits leave: corrections, then the
        others, each in the order of the log.
        """
        return list(islice(self._within_limits(), count))

    def record_batch(self, entries: Iterable[DatasetEntry | CachedEntry]) -> None:
        """These entries, taken out before, made a batch: it counts for the share of each user until
        it leaves the window.
        """
        leaving = self._recent[0] if len(self._recent) == self._recent.maxlen else Counter[str]()
        joining = Counter(_contributor_of(entry) for entry in entries)
        self._recent.append(joining)
        for whose in leaving | joining:
            line = self._queues.get(whose)
            before = self._quota(whose)
            self._used[whose] += joining[whose] - leaving[whose]
            if not self._used[whose]:
                del self._used[whose]
            if line:
                self._selectable_by_contributor += min(
                    line.within_conversation_limits, self._quota(whose)
                ) - min(line.within_conversation_limits, before)

    def forget_contributor(self, contributor: str) -> None:
        """Let what a user had in the batches before count no more."""
        line = self._queues.get(contributor)
        before = self._quota(contributor)
        for batch in self._recent:
            del batch[contributor]
        del self._used[contributor]
        if line:
            self._selectable_by_contributor += min(
                line.within_conversation_limits, self._quota(contributor)
            ) - min(line.within_conversation_limits, before)

    def _within_limits(self) -> Iterator[DatasetEntry]:
        corrections = sorted(
            (entry for line in self._queues.values() for entry in line.corrections.values()),
            key=_offset,
        )
        others = sorted(
            (entry for line in self._queues.values() for entry in line.approved.values()),
            key=_offset,
        )
        users: Counter[str] = Counter()
        conversations: Counter[str] = Counter()
        for entry in (*corrections, *others):
            whose = _contributor_of(entry)
            if users[whose] < self._quota(whose) and self._within_conversation_limit(
                conversations, entry
            ):
                users[whose] += 1
                if entry.conversation is not None:
                    conversations[entry.conversation] += 1
                yield entry

    def _quota(self, contributor: str) -> int:
        """How many of one user can be in the next batch."""
        return max(0, min(self._per_user, self._per_window - self._used[contributor]))

    def _selectable(self, entry: DatasetEntry, queue: _ContributorQueue) -> int:
        return min(queue.within_conversation_limits, self._quota(_contributor_of(entry)))

    def _within_conversation_limit(self, conversations: Counter[str], entry: DatasetEntry) -> bool:
        return (
            entry.conversation is None or conversations[entry.conversation] < self._per_conversation
        )


def _contributor_of(entry: DatasetEntry | CachedEntry) -> str:
    """Without a user or a conversation an example stands for itself."""
    contributor = entry.influence if isinstance(entry, DatasetEntry) else entry.contributor
    return contributor or f"event:{entry.feedback_id}"


def _offset(entry: DatasetEntry) -> int:
    return entry.source.offset


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
