"""The demo's application: queries the served model over HTTP, and sends its users' feedback over
Kafka.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from ratchet.demo.tickets import Ticket
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import FeedbackReceived, Message
from shared.kafka.client import KafkaProducer
from shared.messaging.bus import publish
from shared.messaging.topics import FEEDBACK_RECEIVED
from shared.service.retry import RetryPolicy

CONCURRENT_REQUESTS = 4  # the server queues those that it cannot process in parallel
ANSWER_TOKENS = 24  # a correct answer has at most 20
RETRY = RetryPolicy(attempts=60, seconds=1.0)


@dataclass(frozen=True)
class ServedAnswer:
    """An answer of the served model, and its version."""

    text: str
    version: str


class DemoApplication:
    """Sends requests and feedback. `sent_at` maps the id of each event to the monotonic time, in
    seconds, at which it was durable.
    """

    def __init__(self, serving: str, producer: KafkaProducer, clock: Clock) -> None:
        self._client = httpx.AsyncClient(base_url=serving, timeout=120.0)
        self._producer = producer
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self.sent_at: dict[str, float] = {}
        self.sent = 0

    async def ask(self, messages: Sequence[Message], model: str = "support") -> ServedAnswer:
        """Return the served model's answer. Raises Unavailable if serving does not answer within a
        minute of retries.
        """
        body = {
            "model": model,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
        }

        async def request() -> httpx.Response:
            try:
                response = await self._client.post("/v1/chat/completions", json=body)
                return response.raise_for_status()
            except httpx.HTTPError as error:
                raise Unavailable(f"the served model does not answer: {error}") from error

        async with self._slots:
            completion = (await RETRY.call(request)).json()
        return ServedAnswer(
            completion["choices"][0]["message"]["content"].strip(),
            completion["model"].rpartition(":")[2],
        )

    async def ask_all(self, tickets: Sequence[Ticket]) -> list[ServedAnswer]:
        """Return the answers to tickets, in the same order."""
        return list(await asyncio.gather(*(self.ask(ticket.messages) for ticket in tickets)))

    async def send(self, event: FeedbackReceived) -> None:
        """Send feedback; it is durable when this returns."""
        await publish(self._producer, FEEDBACK_RECEIVED, event.key, event, "/demo")
        self.sent += 1
        self.sent_at.setdefault(event.event_id, self._clock.monotonic())

    async def send_raw(self, value: bytes) -> None:
        """Send arbitrary bytes, which may be invalid."""
        await self._producer.send(FEEDBACK_RECEIVED, b"demo", value, ())
        self.sent += 1

    async def close(self) -> None:
        await self._client.aclose()


def exact_share(tickets: Sequence[Ticket], answers: Sequence[ServedAnswer]) -> float:
    """Return the share of tickets that were answered exactly as expected."""
    return sum(
        answer.text == ticket.answer for ticket, answer in zip(tickets, answers, strict=True)
    ) / len(tickets)
