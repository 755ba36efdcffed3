"""Index of the entries of a shard by feedback ID, answer and contributor, with their expiry."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from services.dataset.ledger.cached_entry import CachedEntry


class EntryIndex:
    """Entries by feedback ID. The cost of each operation but iteration does not depend on the
    number of entries.
    """

    def __init__(self) -> None:
        self._entries: dict[str, CachedEntry] = {}
        self._latest_by_answer: dict[str, str] = {}
        self._latest_by_contributor: dict[str, str] = {}
        self._not_yet_old: deque[str] = deque()
        self._old: set[str] = set()
        self._changed: list[str] = []

    def __iter__(self) -> Iterator[CachedEntry]:
        return iter(self._entries.values())

    def get(self, feedback_id: str) -> CachedEntry | None:
        """The entry of an event, None if it is not indexed."""
        return self._entries.get(feedback_id)

    def latest_for_answer(self, answer_id: str | None) -> CachedEntry | None:
        """The newest entry that determines the reward of an answer."""
        if answer_id not in self._latest_by_answer:
            return None
        return self._entries[self._latest_by_answer[answer_id]]

    def latest_for_contributor(self, contributor: str) -> CachedEntry | None:
        """The newest entry of a contributor."""
        if contributor not in self._latest_by_contributor:
            return None
        return self._entries[self._latest_by_contributor[contributor]]

    def add(self, cached_entry: CachedEntry) -> None:
        """Add a new entry. Entries are added in the order of the log."""
        feedback_id = cached_entry.feedback_id
        self._entries[feedback_id] = cached_entry
        self._not_yet_old.append(feedback_id)
        if cached_entry.answer_id and cached_entry.reason not in ("late", "corrected"):
            self._latest_by_answer[cached_entry.answer_id] = feedback_id
        if cached_entry.contributor:
            self._latest_by_contributor[cached_entry.contributor] = feedback_id

    def replace(self, cached_entry: CachedEntry) -> None:
        """Replace an indexed entry by a later version of it: with the same answer, and the same
        contributor or none.
        """
        before = self._entries[cached_entry.feedback_id]
        self._entries[cached_entry.feedback_id] = cached_entry
        self._changed.append(cached_entry.feedback_id)
        if not cached_entry.contributor:
            self._unlink_contributor(before)

    def recache(self, cached_entry: CachedEntry) -> None:
        """Replace the encoding of an indexed entry whose other fields stay the same."""
        self._entries[cached_entry.feedback_id] = cached_entry

    def expire(
        self, before: datetime, released: Iterable[str], is_needed: Callable[[CachedEntry], bool]
    ) -> tuple[str, ...]:
        """Remove entries that are older than `before` and not needed. Return their feedback IDs.

        Only entries that have just grown old or changed, or that are in `released` because an index
        no longer needs them, can have become expirable; no others are checked.
        """
        candidates = [*released, *self._changed]
        self._changed.clear()
        while self._not_yet_old and self._entries[self._not_yet_old[0]].logged_at < before:
            candidates.append(self._not_yet_old[0])
            self._old.add(self._not_yet_old.popleft())
        expired = tuple(
            feedback_id
            for feedback_id in dict.fromkeys(candidates)
            if feedback_id in self._old and not is_needed(self._entries[feedback_id])
        )
        for feedback_id in expired:
            self._old.discard(feedback_id)
            cached_entry = self._entries.pop(feedback_id)
            answer_id = cached_entry.answer_id
            if answer_id and self._latest_by_answer.get(answer_id) == feedback_id:
                del self._latest_by_answer[answer_id]
            self._unlink_contributor(cached_entry)
        return expired

    def _unlink_contributor(self, cached_entry: CachedEntry) -> None:
        """Remove an entry as the latest one of its contributor."""
        contributor = cached_entry.contributor
        if contributor and self._latest_by_contributor.get(contributor) == cached_entry.feedback_id:
            del self._latest_by_contributor[contributor]
