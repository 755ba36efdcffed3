"""The intake on a free port, with a fake delivery instead of Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from http import HTTPStatus

import uvicorn

from services.feedback.intake.app import Intake, RequestLimits
from services.feedback.intake.authorization import TokenSource
from services.feedback.intake.delivery import Delivery
from services.feedback.intake.parsing import ParsedEvent
from services.feedback.intake.problems import retry_after
from shared.clock import ManualClock
from shared.http.bounded_server import listen, server_config
from tests.feedback.intake.test_parsing import POLICIES
from tests.support.runtime import runtime_of

LIMITS = RequestLimits(max_events=10, max_body_bytes=10_000, max_in_flight_bytes=15_000)


class FakeDelivery:
    """Collects event ids; can be made unavailable, or made to wait until it is released."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.available = True
        self.released = asyncio.Event()
        self.released.set()

    def connection(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def deliver(self, events: Sequence[ParsedEvent]) -> None:
        await self.released.wait()
        if not self.available:
            raise retry_after(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", 5)
        self.delivered += [event.event_id for event in events]


class RunningIntake:
    """The intake, its delivery, and its port."""

    def __init__(self, tokens: TokenSource | None = None, delivery: Delivery | None = None) -> None:
        runtime = runtime_of("feedback", ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
        self.kafka, self.metrics, self.health = FakeDelivery(), runtime.metrics, runtime.health
        self.app = Intake(LIMITS, POLICIES, delivery or self.kafka, tokens, runtime).app
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def running_intake(tokens: TokenSource | None = None) -> AsyncIterator[RunningIntake]:
    """Serve an intake in the test's event loop."""
    intake = RunningIntake(tokens)
    server = uvicorn.Server(server_config(intake.app, max_body_bytes=None, date_header=False))
    sockets = listen("127.0.0.1", 0)
    intake.port = sockets[0].getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets))
    try:
        yield intake
    finally:
        server.should_exit = True
        await serving
