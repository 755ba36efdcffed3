"""What the demo sees of the loop: the events on the bus, as any other consumer would read them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer

from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import BatchReady, Event, FeedbackScored
from shared.kafka.client import record_of
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import (
    FEEDBACK_SCORED,
    MODELS_VERSIONS,
    TOPICS,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
)

E = TypeVar("E", bound=Event)

WATCHED_TOPICS = (
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    TRAINING_PROGRESS,
    TRAINING_CHECKPOINTS,
    TRAINING_ROLLBACKS,
    MODELS_VERSIONS,
)
_EVENTS = {topic.name: topic.events for topic in TOPICS}


@dataclass
class EventWatcher:
    """Reads the topics of the flow from their beginning and keeps what was said."""

    bootstrap_servers: str
    clock: Clock
    seen: list[tuple[Event, float]] = field(default_factory=list)
    event_ids_by_offset: dict[tuple[int, int], str] = field(default_factory=dict)
    on_event: Callable[[Event], None] = lambda event: None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Watch until cancelled."""
        consumer = AIOKafkaConsumer(
            *WATCHED_TOPICS, bootstrap_servers=self.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async for raw in consumer:
                await self._take(record_of(raw))
        finally:
            await consumer.stop()

    async def wait_for(
        self,
        kinds: type[E] | tuple[type[E], ...],
        where: Callable[[Any], bool],
        seconds: float = 600.0,
    ) -> tuple[E, float]:
        """The first event of a kind that fits, and when it was seen. Raises Unavailable when none
        comes within `seconds`.
        """

        def found() -> tuple[Any, float] | None:
            return next(
                (
                    (event, at)
                    for event, at in self.seen
                    if isinstance(event, kinds) and where(event)
                ),
                None,
            )

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(found), seconds)
            except TimeoutError:
                names = getattr(kinds, "__name__", kinds)
                raise Unavailable(
                    f"no {names} came within {seconds:g} s; .ratchet/demo/ratchet.log says "
                    "what happened"
                ) from None
            event = found()
        assert event is not None
        return event

    def has_event(self, kind: type[Event], where: Callable[[Any], bool]) -> bool:
        return any(isinstance(event, kind) and where(event) for event, _ in self.seen)

    def closing_event_id(self, batch: BatchReady) -> str:
        """The id of the feedback whose example was the last of a batch."""
        last = batch.offsets[-1]
        return self.event_ids_by_offset[last.partition, last.last]

    async def _take(self, record: Record) -> None:
        event = decode(record.value, record.headers, *_EVENTS[record.topic]).event
        if isinstance(event, FeedbackScored):
            self.event_ids_by_offset[record.partition, record.offset] = event.event_id
        async with self._changed:
            self.seen.append((event, self.clock.monotonic()))
            self._changed.notify_all()
        self.on_event(event)


async def read_records(bootstrap_servers: str, topics: Sequence[str]) -> list[Record]:
    """Every record that stands on some topics now."""
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    records: list[Record] = []
    try:
        ends = {
            partition: end
            for partition, end in (await consumer.end_offsets(consumer.assignment())).items()
            if end
        }
        while [
            partition for partition, end in ends.items() if await consumer.position(partition) < end
        ]:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                records += map(record_of, batch)
    finally:
        await consumer.stop()
    return records
