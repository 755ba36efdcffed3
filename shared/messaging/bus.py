"""Bus port: producing and consuming records, and the loop that commits an offset after its effect.

The Kafka adapter is in `shared.kafka.client`; `MemoryBus` is the in-memory one for tests.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from shared.clock import Clock
from shared.errors import Unprocessable
from shared.events import Event, Position
from shared.messaging.codec import Header, Headers, encode
from shared.messaging.dead_letters import DeadLetterInfo, original_headers
from shared.messaging.topics import dead_letter_topic


@dataclass(frozen=True, slots=True)
class Record:
    """A record on a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp: datetime | None = field(default=None, compare=False)
    """Timestamp of the record, if known."""

    @property
    def position(self) -> Position:
        return Position(topic=self.topic, partition=self.partition, offset=self.offset)


class Producer(Protocol):
    """Produces records.

    `send` returns when the record is durable; raises BusUnavailable when it could not be made
    durable.
    """

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None: ...


class BufferedProducer(Protocol):
    """Produces records in order without waiting for each delivery."""

    async def send_nowait(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Awaitable[object]:
        """Enqueue a record; the returned awaitable completes when the record is durable.

        It raises BusUnavailable when the record could not be delivered.
        """


async def publish(
    producer: Producer, topic: str, key: str, event: Event, source: str, extra_headers: Headers = ()
) -> None:
    """Produce an event, with `extra_headers` besides its own, and wait until it is durable."""
    value, headers = encode(event, source)
    await producer.send(topic, key.encode(), value, [*headers, *extra_headers])


async def send_dead_letter(
    producer: Producer, record: Record, error: Unprocessable, service: str, clock: Clock
) -> None:
    """Produce an unprocessable record, unchanged, to its dead-letter topic, with its position and
    the reason in headers.
    """
    info = DeadLetterInfo.for_error(record.position, record.headers, error, service, clock.now())
    headers = [*original_headers(record.headers), *info.headers()]
    await producer.send(dead_letter_topic(record.topic), record.key, record.value, headers)


Handler = Callable[[Record], Awaitable[None]]


@dataclass
class MemoryBus:
    """In-memory broker: one partition per topic, unlimited retention; a `Producer`."""

    topics: dict[str, list[Record]] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        log = self.topics.setdefault(topic, [])
        log.append(Record(topic, 0, len(log), key, value, tuple(headers)))

    async def records(self, topic: str) -> AsyncIterator[Record]:
        """Yield records from the committed offset to the present end of a topic."""
        for record in self.topics.get(topic, [])[self.committed.get(topic, 0) :]:
            yield record

    async def commit(self, record: Record) -> None:
        self.committed[record.topic] = record.offset + 1
