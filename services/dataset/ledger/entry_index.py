"""What is known of events: their entries, the newest of each answer and of each user, and which of
them have grown old.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from services.dataset.ledger.cached_entry import CachedEntry


class EntryIndex:
    """Entries by feedback id. Each operation but iteration costs the same however many there are."""

    def __init__(self) -> None:
        self._entries: dict[str, CachedEntry] = {}
        self._latest_by_answer: dict[str, str] = {}
        self._latest_by_contributor: dict[str, str] = {}
        self._not_yet_old: deque[str] = deque()
        self._old: set[str] = set()
        self._changed: list[str] = []

    def __iter__(self) -> Iterator[CachedEntry]:
        return iter(self._entries.values())

    def __getitem__(self, name: str) -> CachedEntry:
        return self._entries[name]

    def get(self, name: str) -> CachedEntry | None:
        return self._entries.get(name)

    def latest_for_answer(self, answer_id: str | None) -> CachedEntry | None:
        """The newest entry that says what an answer is worth."""
        return (
            self._entries[self._latest_by_answer[answer_id]]
            if answer_id in self._latest_by_answer
            else None
        )

    def latest_for_contributor(self, contributor: str) -> CachedEntry | None:
        """The newest entry of a user."""
        return (
            self._entries[self._latest_by_contributor[contributor]]
            if contributor in self._latest_by_contributor
            else None
        )

    def add(self, cached_entry: CachedEntry) -> None:
        """Entries are added in the order of the log."""
        name = cached_entry.feedback_id
        self._entries[name] = cached_entry
        self._not_yet_old.append(name)
        if cached_entry.answer_id and cached_entry.reason not in ("late", "corrected"):
            self._latest_by_answer[cached_entry.answer_id] = name
        if cached_entry.contributor:
            self._latest_by_contributor[cached_entry.contributor] = name

    def replace(self, cached_entry: CachedEntry) -> None:
        """An entry that is known says something else now; of the same answer, and of the same user
        or of none.
        """
        name = cached_entry.feedback_id
        before = self._entries[name]
        self._entries[name] = cached_entry
        self._changed.append(name)
        if not cached_entry.contributor:
            self._unlink_contributor(before)

    def lighten(self, name: str) -> CachedEntry | None:
        """Hold an entry without its signatures, with which nothing is compared any more; as it is
        then, or None if it has none.
        """
        entry = self._entries[name].entry
        if entry.text is None and entry.prompt is None:
            return None
        # Its names are those that everything else here goes by: another card would have names of
        # its own.
        self._entries[name] = replace(
            self._entries[name], encoded=entry.without_signatures().encode()
        )
        return self._entries[name]

    def expire(
        self, before: datetime, released: Iterable[str], is_needed: Callable[[CachedEntry], bool]
    ) -> tuple[str, ...]:
        """Forget entries that are older than `before` and not needed, and say which.

        Looked at are those that have just grown old, have changed, or `left` what had needed them:
        only those can have become needless.
        """
        candidates = [*released, *self._changed]
        self._changed.clear()
        while self._not_yet_old and self._entries[self._not_yet_old[0]].logged_at < before:
            candidates.append(self._not_yet_old[0])
            self._old.add(self._not_yet_old.popleft())
        gone = tuple(
            name
            for name in dict.fromkeys(candidates)
            if name in self._old and not is_needed(self._entries[name])
        )
        for name in gone:
            self._old.discard(name)
            card = self._entries.pop(name)
            if card.answer_id and self._latest_by_answer.get(card.answer_id) == name:
                del self._latest_by_answer[card.answer_id]
            self._unlink_contributor(card)
        return gone

    def _unlink_contributor(self, cached_entry: CachedEntry) -> None:
        """Have an entry stand for its user no more."""
        if (
            cached_entry.contributor
            and self._latest_by_contributor.get(cached_entry.contributor)
            == cached_entry.feedback_id
        ):
            del self._latest_by_contributor[cached_entry.contributor]
