"""What takes feedback, without a network: as it is told to."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from ratchet_client.event import FeedbackRecord, build_record
from ratchet_client.transport import RecordRefused, TransportUnavailable


def record(number: int, size: int = 0) -> FeedbackRecord:
    """Number `number` of a user's remarks."""
    output = f"a{number}".ljust(size, ".")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return build_record(
        {
            "model": "m",
            "input": "q",
            "output": output,
            "feedback_type": "accepted",
            "event_id": f"e{number}",
        },
        now,
    )


class FakeTransport:
    """A transport with state: what it took, whether it answers, and what it will never take."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.answers = True
        self.hangs = False
        self.refuses: set[str] = set()

    async def send(self, records: Sequence[FeedbackRecord]) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if not self.answers:
            raise TransportUnavailable("away")
        for index, one in enumerate(records):
            if one.event_id in self.refuses:
                raise RecordRefused(index, "never")
        self.taken += [one.event_id for one in records]

    async def close(self) -> None:
        self.answers = False
