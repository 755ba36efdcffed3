"""Examples of users who were not seen before, held until their time has come: whoever makes up
users has to wait with each of them.
"""

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush

from shared.storage.dataset_entries import DatasetEntry


class NewUserDelay:
    """Entries by the time at which they may enter a batch. The clock is that of the log."""

    def __init__(self) -> None:
        self._entries: dict[str, DatasetEntry] = {}
        self._order: list[tuple[datetime, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: DatasetEntry) -> bool:
        return entry.feedback_id in self._entries

    def add(self, entry: DatasetEntry, until: datetime) -> None:
        self._entries[entry.feedback_id] = entry
        heappush(self._order, (until, entry.feedback_id))

    def remove(self, entry: DatasetEntry) -> None:
        del self._entries[entry.feedback_id]

    def due(self, now: datetime) -> Iterator[DatasetEntry]:
        """Take out those whose time has come by `now`."""
        while self._order and self._order[0][0] <= now:
            _, name = heappop(self._order)
            if (entry := self._entries.pop(name, None)) is not None:
                yield entry
