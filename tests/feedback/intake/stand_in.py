"""An intake on a port of its own, with a stand-in for Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus

from services.feedback.intake.app import Intake, Limits
from services.feedback.intake.authorization import TokensNow
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.http import Connections
from services.feedback.intake.parsing import Entry
from services.feedback.intake.responses import later
from shared.clock import ManualClock
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from tests.feedback.intake.test_reading import POLICIES

LIMITS = Limits(events=10, body=10_000, in_flight=15_000)


class StandIn:
    """Takes what it is given, while it is there, and when it is let go on."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.is_there = True
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def put(self, entries: Sequence[Entry]) -> None:
        await self.goes_on.wait()
        if not self.is_there:
            raise later(HTTPStatus.SERVICE_UNAVAILABLE, "away", 5)
        self.taken += [entry.event_id for entry in entries]


class Running:
    """The intake, its Kafka, and where it listens."""

    def __init__(self, tokens: TokensNow | None = None, delivery: Delivery | None = None) -> None:
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.kafka, self.metrics, self.health = StandIn(), Metrics("feedback"), Health(clock)
        self.app = Intake(
            LIMITS, POLICIES, delivery or self.kafka, tokens, self.health, self.metrics, clock
        )
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def running(tokens: TokensNow | None = None) -> AsyncIterator[Running]:
    intake = Running(tokens)
    async with await asyncio.start_server(Connections(intake.app).serve, "127.0.0.1", 0) as server:
        intake.port = server.sockets[0].getsockname()[1]
        yield intake
        server.close()
