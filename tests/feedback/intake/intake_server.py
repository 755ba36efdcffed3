"""An intake on a port of its own, with a stand-in for Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus

from services.feedback.intake.app import Intake, RequestLimits
from services.feedback.intake.authorization import TokenSource
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.http import Connections
from services.feedback.intake.parsing import ParsedEvent
from services.feedback.intake.responses import retry_after
from shared.clock import ManualClock
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from tests.feedback.intake.test_parsing import POLICIES

LIMITS = RequestLimits(max_events=10, max_body_bytes=10_000, max_in_flight_bytes=15_000)


class FakeDelivery:
    """Takes what it is given, while it is there, and when it is let go on."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.available = True
        self.released = asyncio.Event()
        self.released.set()

    async def deliver(self, entries: Sequence[ParsedEvent]) -> None:
        await self.released.wait()
        if not self.available:
            raise retry_after(HTTPStatus.SERVICE_UNAVAILABLE, "away", 5)
        self.delivered += [entry.event_id for entry in entries]


class RunningIntake:
    """The intake, its Kafka, and where it listens."""

    def __init__(self, tokens: TokenSource | None = None, delivery: Delivery | None = None) -> None:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.kafka, self.metrics, self.health = FakeDelivery(), Metrics("feedback"), Health(clock)
        self.app = Intake(
            LIMITS, POLICIES, delivery or self.kafka, tokens, self.health, self.metrics, clock
        )
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def running_intake(tokens: TokenSource | None = None) -> AsyncIterator[RunningIntake]:
    intake = RunningIntake(tokens)
    async with await asyncio.start_server(Connections(intake.app).serve, "127.0.0.1", 0) as server:
        intake.port = server.sockets[0].getsockname()[1]
        yield intake
        server.close()
