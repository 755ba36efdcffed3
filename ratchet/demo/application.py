"""The application: asks the served model over HTTP, and sends what people say of the answers over
the bus.
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

CONCURRENT_REQUESTS = 4  # requests under way; the server queues what it cannot answer side by side
ANSWER_TOKENS = 24  # a sorted ticket has at most 20


@dataclass(frozen=True)
class ServedAnswer:
    """What the served model said, and which version it was."""

    text: str
    version: str


class DemoApplication:
    """Asks and sends. `sent_at` has the moment (monotonic seconds) at which each event was durable."""

    def __init__(self, serving: str, producer: KafkaProducer, clock: Clock) -> None:
        self._client = httpx.AsyncClient(base_url=serving, timeout=120.0)
        self._producer = producer
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self.sent_at: dict[str, float] = {}
        self.sent = 0

    async def ask(self, messages: Sequence[Message], model: str = "support") -> ServedAnswer:
        """The served model's answer. Raises Unavailable when serving does not answer within a
        minute of trying.
        """
        body = {
            "model": model,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
        }
        async with self._slots:
            for attempt in range(60):
                try:
                    response = await self._client.post("/v1/chat/completions", json=body)
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    failure = error
                    await asyncio.sleep(1.0 if attempt else 0.2)
                    continue
                said = response.json()
                return ServedAnswer(
                    said["choices"][0]["message"]["content"].strip(),
                    said["model"].rpartition(":")[2],
                )
        raise Unavailable(f"the served model does not answer: {failure}")

    async def ask_all(self, tickets: Sequence[Ticket]) -> list[ServedAnswer]:
        """Answers to tickets, in their order."""
        return list(await asyncio.gather(*(self.ask(ticket.messages) for ticket in tickets)))

    async def send(self, event: FeedbackReceived) -> None:
        """Send feedback; durable when this returns."""
        await publish(self._producer, FEEDBACK_RECEIVED, event.key, event, "/demo")
        self.sent += 1
        self.sent_at.setdefault(event.event_id, self._clock.monotonic())

    async def send_raw(self, value: bytes) -> None:
        """Send bytes that need not be an event."""
        await self._producer.send(FEEDBACK_RECEIVED, b"demo", value, ())
        self.sent += 1

    async def close(self) -> None:
        await self._client.aclose()


def exact_share(tickets: Sequence[Ticket], answers: Sequence[ServedAnswer]) -> float:
    """The share of tickets whose answer is the house's, to the letter."""
    return sum(
        answer.text == ticket.answer for ticket, answer in zip(tickets, answers, strict=True)
    ) / len(tickets)
