"""Delay of examples from users not seen before: invented users cannot fill a batch at once."""

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush

from shared.storage.dataset_entries import DatasetEntry


class NewUserDelay:
    """Entries by the time from which they may enter a batch, in the time of the log."""

    def __init__(self) -> None:
        self._entries: dict[str, DatasetEntry] = {}
        self._order: list[tuple[datetime, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: DatasetEntry) -> bool:
        return entry.feedback_id in self._entries

    def add(self, entry: DatasetEntry, until: datetime) -> None:
        """Delay an entry until a time."""
        self._entries[entry.feedback_id] = entry
        heappush(self._order, (until, entry.feedback_id))

    def remove(self, entry: DatasetEntry) -> None:
        """Remove a delayed entry. Raises KeyError if it is not delayed."""
        del self._entries[entry.feedback_id]

    def due(self, now: datetime) -> Iterator[DatasetEntry]:
        """Remove and yield the entries whose delay has ended by `now`."""
        while self._order and self._order[0][0] <= now:
            _, feedback_id = heappop(self._order)
            if (entry := self._entries.pop(feedback_id, None)) is not None:
                yield entry
