"""In-memory transport with scripted behaviour."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from ratchet_client.event import FeedbackRecord, build_record
from ratchet_client.transport import RecordRefused, TransportUnavailable


def record(number: int, size: int = 0) -> FeedbackRecord:
    """Build record `number` of one user's feedback."""
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
    """Transport with state: the records it accepted, its availability, and the ids it refuses."""

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
        for index, record in enumerate(records):
            if record.event_id in self.refuses:
                raise RecordRefused(index, "never")
        self.taken += [record.event_id for record in records]

    async def close(self) -> None:
        self.answers = False
