"""Counts of recorded, sent, spooled and dropped events."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal

DropReason = Literal["buffer_full", "spool_full", "refused", "unreadable", "closed"]
"""Reason for dropping an event: `refused` by the destination, `unreadable` on disk, `closed` with a
spool in memory.
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Event counts of a client since its start, and its pending events.

    `sent` includes events of an earlier process's spool. An event may be sent twice; Ratchet counts
    it once.
    """

    recorded: int
    sent: int
    spooled: int
    dropped: Mapping[DropReason, int]
    buffered: int
    spool_bytes: int


class Counters:
    """Thread-safe counters."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[DropReason] = Counter()

    def add(self, name: Literal["recorded", "sent", "spooled"], events: int = 1) -> None:
        with self._lock:
            self._counts[name] += events

    def drop(self, reason: DropReason, events: int = 1) -> None:
        with self._lock:
            self._dropped[reason] += events

    def counts(self, buffered: int, spool_bytes: int) -> Counts:
        with self._lock:
            counts = {name: self._counts[name] for name in ("recorded", "sent", "spooled")}
            return Counts(
                **counts, dropped=dict(self._dropped), buffered=buffered, spool_bytes=spool_bytes
            )
