"""What is known of events: their entries, the newest of each answer and of each user, and which of them have grown old."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from shared.entries import Entry


class Known:
    """Entries by feedback id. Each operation but iteration costs the same however many there are."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._answers: dict[str, Entry] = {}
        self._users: dict[str, Entry] = {}
        self._aging: deque[str] = deque()
        self._aged: set[str] = set()
        self._changed: list[str] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def waits(self, name: str) -> bool:
        """Whether an event is known, and waits for a batch."""
        return name in self._entries and self._entries[name].waits

    def of_answer(self, answer_id: str | None) -> Entry | None:
        """The newest entry that says what an answer is worth."""
        return self._answers.get(answer_id) if answer_id else None

    def of_user(self, influence: str) -> Entry | None:
        """The newest entry of a user."""
        return self._users.get(influence)

    def add(self, entry: Entry) -> None:
        """Entries are added in the order of the log."""
        self._entries[entry.feedback_id] = entry
        self._aging.append(entry.feedback_id)
        if entry.answer_id and entry.reason not in ("late", "corrected"):
            self._answers[entry.answer_id] = entry
        if entry.influence:
            self._users[entry.influence] = entry

    def change(self, entry: Entry) -> None:
        """An entry that is known says something else now."""
        before = self._entries[entry.feedback_id]
        self._entries[entry.feedback_id] = entry
        self._changed.append(entry.feedback_id)
        if entry.answer_id and self._answers.get(entry.answer_id) is before:
            self._answers[entry.answer_id] = entry
        if before.influence and self._users.get(before.influence) is before:
            del self._users[before.influence]
            if entry.influence:
                self._users[entry.influence] = entry

    def expire(self, before: datetime, left: Iterable[str], is_needed: Callable[[Entry], bool]) -> tuple[str, ...]:
        """Forget entries that are older than `before` and not needed, and say which.

        Looked at are those that have just grown old, have changed, or `left` what had needed them: only those can have become needless.
        """
        candidates = [*left, *self._changed]
        self._changed.clear()
        while self._aging and self._entries[self._aging[0]].logged_at < before:
            candidates.append(self._aging[0])
            self._aged.add(self._aging.popleft())
        gone = tuple(name for name in dict.fromkeys(candidates) if name in self._aged and not is_needed(self._entries[name]))
        for name in gone:
            self._aged.discard(name)
            entry = self._entries.pop(name)
            if entry.answer_id and self._answers.get(entry.answer_id) is entry:
                del self._answers[entry.answer_id]
            if entry.influence and self._users.get(entry.influence) is entry:
                del self._users[entry.influence]
        return gone
