"""The training examples that wait for their batch: corrections first, then in the order of the log,
few of each user and conversation.

Limits hold one user's, and one conversation's, influence on a batch and over the batches before it.
What they hold back keeps waiting.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from services.dataset.ledger.entry_row import Card
from shared.config.model_file import Curation
from shared.storage.dataset_entries import Entry


@dataclass
class _Line:
    """What waits of one user, by feedback id."""

    corrections: dict[str, Entry] = field(default_factory=dict)
    others: dict[str, Entry] = field(default_factory=dict)
    conversations: Counter[str] = field(default_factory=Counter)
    open: int = 0
    """How many could enter a batch if only conversations were limited."""

    def __len__(self) -> int:
        return len(self.corrections) + len(self.others)


class Waiting:
    """A queue that knows at any time how many of its examples can be in the next batch at most.

    Adding and removing cost the same however many wait; choosing, as much as waits.
    """

    def __init__(self, policy: Curation) -> None:
        self._per_user = policy.examples_per_user
        self._per_conversation = policy.examples_per_conversation
        self._per_window = max(1, int(policy.user_share * policy.share_window * policy.batch_size))
        self._recent: deque[Counter[str]] = deque(maxlen=policy.share_window)
        self._used: Counter[str] = Counter()
        self._lines: dict[str, _Line] = {}
        self._conversations: Counter[str] = Counter()
        self._by_user = 0
        self._by_conversation = 0
        self.size = 0

    @property
    def most(self) -> int:
        """At least as many as `choose` can give. The same, unless conversations are shared by users
        who are at their limits.
        """
        return min(self._by_user, self._by_conversation)

    def add(self, entry: Entry) -> None:
        """The order in which entries are added does not matter."""
        line = self._lines.setdefault(_whose(entry), _Line())
        self._by_user -= self._eligible(entry, line)
        (line.corrections if entry.reason == "correction" else line.others)[entry.feedback_id] = (
            entry
        )
        line.open += self._has_room(line.conversations, entry)
        self._by_conversation += self._has_room(self._conversations, entry)
        if entry.conversation is not None:
            line.conversations[entry.conversation] += 1
            self._conversations[entry.conversation] += 1
        self._by_user += self._eligible(entry, line)
        self.size += 1

    def remove(self, entry: Entry) -> None:
        """Take an entry out. KeyError when it does not wait."""
        line = self._lines[_whose(entry)]
        self._by_user -= self._eligible(entry, line)
        del (line.corrections if entry.reason == "correction" else line.others)[entry.feedback_id]
        if entry.conversation is not None:
            _decrease(line.conversations, entry.conversation)
            _decrease(self._conversations, entry.conversation)
        line.open -= self._has_room(line.conversations, entry)
        self._by_conversation -= self._has_room(self._conversations, entry)
        self._by_user += self._eligible(entry, line)
        self.size -= 1
        if not len(line):
            del self._lines[_whose(entry)]

    def choose(self, count: int) -> list[Entry]:
        """The `count` examples that are next, or what the limits leave: corrections, then the
        others, each in the order of the log.
        """
        return list(islice(self._allowed(), count))

    def trained(self, entries: Iterable[Entry | Card]) -> None:
        """These entries, taken out before, made a batch: it counts for the share of each user until
        it leaves the window.
        """
        leaving = self._recent[0] if len(self._recent) == self._recent.maxlen else Counter[str]()
        joining = Counter(_whose(entry) for entry in entries)
        self._recent.append(joining)
        for whose in leaving | joining:
            line = self._lines.get(whose)
            before = self._limit(whose)
            self._used[whose] += joining[whose] - leaving[whose]
            if not self._used[whose]:
                del self._used[whose]
            if line:
                self._by_user += min(line.open, self._limit(whose)) - min(line.open, before)

    def forget(self, whose: str) -> None:
        """Let what a user had in the batches before count no more."""
        line = self._lines.get(whose)
        before = self._limit(whose)
        for batch in self._recent:
            del batch[whose]
        del self._used[whose]
        if line:
            self._by_user += min(line.open, self._limit(whose)) - min(line.open, before)

    def _allowed(self) -> Iterator[Entry]:
        corrections = sorted(
            (entry for line in self._lines.values() for entry in line.corrections.values()),
            key=_offset,
        )
        others = sorted(
            (entry for line in self._lines.values() for entry in line.others.values()), key=_offset
        )
        users: Counter[str] = Counter()
        conversations: Counter[str] = Counter()
        for entry in (*corrections, *others):
            whose = _whose(entry)
            if users[whose] < self._limit(whose) and self._has_room(conversations, entry):
                users[whose] += 1
                if entry.conversation is not None:
                    conversations[entry.conversation] += 1
                yield entry

    def _limit(self, whose: str) -> int:
        """How many of one user can be in the next batch."""
        return max(0, min(self._per_user, self._per_window - self._used[whose]))

    def _eligible(self, entry: Entry, line: _Line) -> int:
        return min(line.open, self._limit(_whose(entry)))

    def _has_room(self, conversations: Counter[str], entry: Entry) -> bool:
        return (
            entry.conversation is None or conversations[entry.conversation] < self._per_conversation
        )


def _whose(entry: Entry | Card) -> str:
    """Without a user or a conversation an example stands for itself."""
    return entry.influence or f"event:{entry.feedback_id}"


def _offset(entry: Entry) -> int:
    return entry.source.offset


def _decrease(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
