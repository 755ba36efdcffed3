"""Delivery to Kafka: an event is accepted after all in-sync replicas acknowledged it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Protocol

from services.feedback.intake.parsing import ParsedEvent
from services.feedback.intake.problems import IntakeProblem, retry_after
from shared.errors import BusUnavailable, Misconfigured
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import BufferedProducer
from shared.messaging.topics import FEEDBACK_RECEIVED

RETRY_SECONDS = 5


class Delivery(Protocol):
    """Stores accepted feedback."""

    def connection(self) -> AbstractAsyncContextManager[None]:
        """Open the connection for the lifetime of the server."""

    async def deliver(self, events: Sequence[ParsedEvent]) -> None:
        """Return when all events are durable. Raises IntakeProblem; then some of them may be."""


class KafkaDelivery:
    """Delivers to `feedback.received`. An acknowledgement may take `ack_timeout` seconds."""

    def __init__(
        self, bootstrap_servers: str, ack_timeout: float, security: Security = PLAINTEXT
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._ack_timeout = ack_timeout
        self._producer: BufferedProducer | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """Connect in the background, so that the server starts without Kafka. Until the connection
        is open, `deliver` raises an IntakeProblem (503).
        """
        async with AsyncExitStack() as stack:
            connecting = asyncio.create_task(self._connect(stack))
            try:
                yield
            finally:
                connecting.cancel()
                await asyncio.wait([connecting])

    async def _connect(self, stack: AsyncExitStack) -> None:
        # Without a bound on the attempts, so no RetryPolicy: clients see 503 meanwhile.
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

    async def deliver(self, events: Sequence[ParsedEvent]) -> None:
        if self._producer is None:
            raise _unavailable()
        try:
            async with asyncio.timeout(self._ack_timeout):
                await _send_all(self._producer, events)
        except TimeoutError as error:
            raise _unavailable() from error
        except BusUnavailable as error:
            raise _unavailable(str(error)) from error


async def _send_all(producer: BufferedProducer, events: Sequence[ParsedEvent]) -> None:
    """Send events. Raises IntakeProblem (413) with the index of an event that Kafka refuses for its
    size.
    """
    deliveries: list[asyncio.Future[object]] = []
    try:
        for event in events:
            delivery = await producer.send_nowait(FEEDBACK_RECEIVED, event.key, event.value, ())
            deliveries.append(asyncio.ensure_future(delivery))
        outcomes = await asyncio.gather(*deliveries, return_exceptions=True)
    finally:
        for pending in deliveries:
            pending.cancel()
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Misconfigured):
            raise IntakeProblem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"event {index}: {outcome}",
                index=index,
                field="",
            ) from outcome
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _unavailable(reason: str = "Kafka did not acknowledge the events in time") -> IntakeProblem:
    return retry_after(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{reason}; send the whole request again, with the same event ids",
        RETRY_SECONDS,
    )
