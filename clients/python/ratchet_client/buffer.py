"""In-memory buffer of recently recorded events, bounded in events and bytes."""

from collections import deque
from threading import Lock

from ratchet_client.event import FeedbackRecord


class Buffer:
    """Filled by the application's threads, emptied by the sender's."""

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._records: deque[FeedbackRecord] = deque()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._records)

    def offer(self, record: FeedbackRecord) -> int:
        """Append a record and return the new length; return 0 when the buffer is full and the
        record was not added.
        """
        with self._lock:
            if (
                len(self._records) >= self._most_events
                or self._bytes + len(record.value) > self._most_bytes
            ):
                return 0
            self._records.append(record)
            self._bytes += len(record.value)
            return len(self._records)

    def take(self, events: int, size: int) -> list[FeedbackRecord]:
        """Remove and return the oldest records, at most `events` and `size` bytes, but at least one
        unless empty.
        """
        with self._lock:
            taken: list[FeedbackRecord] = []
            while (
                self._records
                and len(taken) < events
                and (not taken or len(self._records[0].value) <= size)
            ):
                record = self._records.popleft()
                size -= len(record.value)
                self._bytes -= len(record.value)
                taken.append(record)
            return taken
