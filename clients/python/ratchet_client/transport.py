"""The port to what takes feedback."""

from collections.abc import Sequence
from typing import Protocol

from ratchet_client.event import FeedbackRecord


class TransportUnavailable(Exception):
    """Nothing takes feedback at present, or not from us; try again, not before `retry_after`
    seconds.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RecordRefused(Exception):
    """The record at `index` will never be taken; the others may be."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class Transport(Protocol):
    """Brings records to Ratchet. A send that is cancelled may have happened."""

    async def send(self, records: Sequence[FeedbackRecord]) -> None:
        """Returns when all are durable there. Raises Unavailable or Refused; then some may be
        durable, and all can be sent again.
        """

    async def close(self) -> None: ...
