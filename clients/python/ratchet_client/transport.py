"""Transport port: the destination of feedback."""

from collections.abc import Sequence
from typing import Protocol

from ratchet_client.event import FeedbackRecord


class TransportUnavailable(Exception):
    """The destination does not accept feedback at present, or not from this client; retry after
    `retry_after` seconds.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RecordRefused(Exception):
    """The record at `index` will never be accepted; the others may be."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class Transport(Protocol):
    """Delivers records to Ratchet. A cancelled send may have been delivered."""

    async def send(self, records: Sequence[FeedbackRecord]) -> None:
        """Send records; returns when all are durable.

        Raises TransportUnavailable or RecordRefused; some may be durable then, and all can be sent
        again.
        """

    async def close(self) -> None: ...
