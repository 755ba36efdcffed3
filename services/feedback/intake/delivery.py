"""Records into Kafka, acknowledged by all in-sync replicas before anybody is told that they were
accepted.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Protocol

from services.feedback.intake.parsing import ParsedEvent
from services.feedback.intake.responses import IntakeProblem, retry_after
from shared.errors import BusUnavailable, Misconfigured
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import BufferedProducer
from shared.messaging.topics import FEEDBACK_RECEIVED

RETRY_SECONDS = 5


class Delivery(Protocol):
    """Where accepted feedback goes."""

    async def deliver(self, entries: Sequence[ParsedEvent]) -> None:
        """Returns when all are durable. Raises Problem; then some of them may be."""


class KafkaDelivery:
    """`seconds` is how long an acknowledgement may take."""

    def __init__(
        self, bootstrap_servers: str, seconds: float, security: Security = PLAINTEXT
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._ack_timeout = seconds
        self._producer: BufferedProducer | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
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
                await asyncio.sleep(RETRY_SECONDS)
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                stack.push_async_callback(producer.stop)
                self._producer = producer
                return

    async def deliver(self, entries: Sequence[ParsedEvent]) -> None:
        if self._producer is None:
            raise _unavailable()
        try:
            async with asyncio.timeout(self._ack_timeout):
                await _send_all(self._producer, entries)
        except (TimeoutError, BusUnavailable) as error:
            raise _unavailable() from error
        except Misconfigured as error:
            raise IntakeProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error


async def _send_all(producer: BufferedProducer, entries: Sequence[ParsedEvent]) -> None:
    under_way: list[asyncio.Future[object]] = []
    try:
        for entry in entries:
            begun = await producer.send_nowait(FEEDBACK_RECEIVED, entry.key, entry.value, ())
            under_way.append(asyncio.ensure_future(begun))
        await asyncio.gather(*under_way)
    finally:
        for delivery in under_way:
            delivery.cancel()


def _unavailable() -> IntakeProblem:
    detail = (
        "Kafka did not acknowledge it in time; send the whole request again, with the same event "
        "ids"
    )
    return retry_after(HTTPStatus.SERVICE_UNAVAILABLE, detail, RETRY_SECONDS)
