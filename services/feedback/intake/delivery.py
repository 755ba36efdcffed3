"""Records into Kafka, acknowledged by all in-sync replicas before anybody is told that they were
accepted.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Protocol

from services.feedback.intake.parsing import Entry
from services.feedback.intake.responses import Problem, later
from shared.errors import BusUnavailable, Misconfigured
from shared.kafka.client import KafkaProducer
from shared.kafka.security import OPEN, Security
from shared.messaging.bus import Pipeline
from shared.messaging.topics import FEEDBACK_RECEIVED

AGAIN_SECONDS = 5


class Delivery(Protocol):
    """Where accepted feedback goes."""

    async def put(self, entries: Sequence[Entry]) -> None:
        """Returns when all are durable. Raises Problem; then some of them may be."""


class KafkaDelivery:
    """`seconds` is how long an acknowledgement may take."""

    def __init__(self, bootstrap_servers: str, seconds: float, security: Security = OPEN) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._seconds = seconds
        self._producer: Pipeline | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Be connected meanwhile, as soon as Kafka answers. Until then, what is put is told to come
        again.
        """
        async with AsyncExitStack() as stack:
            connecting = asyncio.create_task(self._connect(stack))
            try:
                yield
            finally:
                connecting.cancel()
                await asyncio.wait([connecting])

    async def _connect(self, stack: AsyncExitStack) -> None:
        while True:
            producer = KafkaProducer(self._bootstrap_servers, self._security)
            try:
                await producer.start()
            except BusUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                stack.push_async_callback(producer.stop)
                self._producer = producer
                return

    async def put(self, entries: Sequence[Entry]) -> None:
        if self._producer is None:
            raise _away()
        try:
            async with asyncio.timeout(self._seconds):
                await _acknowledged(self._producer, entries)
        except (TimeoutError, BusUnavailable) as error:
            raise _away() from error
        except Misconfigured as error:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error


async def _acknowledged(producer: Pipeline, entries: Sequence[Entry]) -> None:
    under_way: list[asyncio.Future[object]] = []
    try:
        for entry in entries:
            begun = await producer.begin(FEEDBACK_RECEIVED, entry.key, entry.value, ())
            under_way.append(asyncio.ensure_future(begun))
        await asyncio.gather(*under_way)
    finally:
        for delivery in under_way:
            delivery.cancel()


def _away() -> Problem:
    detail = (
        "Kafka did not acknowledge it in time; send the whole request again, with the same event "
        "ids"
    )
    return later(HTTPStatus.SERVICE_UNAVAILABLE, detail, AGAIN_SECONDS)
