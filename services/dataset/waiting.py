"""The training examples that wait for their batch: corrections first, then in the order of the log, few of each user."""

from collections import deque
from dataclasses import dataclass, field

from shared.entries import Entry


@dataclass
class _Line:
    """What waits of one user; both in the order of the log."""

    corrections: deque[Entry] = field(default_factory=deque)
    others: deque[Entry] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.corrections) + len(self.others)

    def first(self, count: int) -> list[Entry]:
        taken = [self.corrections[at] for at in range(min(count, len(self.corrections)))]
        return taken + [self.others[at] for at in range(min(count - len(taken), len(self.others)))]

    def drop(self, count: int) -> None:
        for _ in range(count):
            (self.corrections or self.others).popleft()


class Waiting:
    """A queue that knows at any time how many of its examples may enter the next batch: `eligible`, the sum over users of what
    waits of them, at most `per_user` each. Adding costs the same however many wait; taking, as much as a batch is large."""

    def __init__(self, per_user: int) -> None:
        self._per_user = per_user
        self._lines: dict[str, _Line] = {}
        self.eligible = 0
        self.size = 0

    def add(self, entry: Entry) -> None:
        """Entries are added in the order of the log."""
        line = self._lines.setdefault(_whose(entry), _Line())
        (line.corrections if entry.reason == "correction" else line.others).append(entry)
        self.size += 1
        self.eligible += len(line) <= self._per_user

    def first(self, count: int) -> list[Entry]:
        """The `count` examples that are next: corrections, then the others, each in the order of the log."""
        candidates = [entry for line in self._lines.values() for entry in line.first(self._per_user)]
        return sorted(candidates, key=lambda entry: (entry.reason != "correction", entry.source.offset))[:count]

    def remove(self, entries: list[Entry]) -> None:
        """Take out what `first` gave."""
        counts: dict[str, int] = {}
        for entry in entries:
            counts[_whose(entry)] = counts.get(_whose(entry), 0) + 1
        for whose, count in counts.items():
            line = self._lines[whose]
            self.eligible -= min(len(line), self._per_user)
            line.drop(count)
            self.eligible += min(len(line), self._per_user)
            if not len(line):
                del self._lines[whose]
        self.size -= len(entries)


def _whose(entry: Entry) -> str:
    """Without a user or a conversation an example stands for itself."""
    return entry.influence or f"event:{entry.feedback_id}"
