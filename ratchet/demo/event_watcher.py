"""Observes the pipeline: reads the events of its topics, like any other consumer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer

from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import BatchReady, Event, FeedbackScored
from shared.kafka.client import READ_COMMITTED, record_of
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
    """Reads the topics of the pipeline from the beginning and keeps every event with its time."""

    bootstrap_servers: str
    clock: Clock
    seen: list[tuple[Event, float]] = field(default_factory=list)
    event_ids_by_offset: dict[tuple[int, int], str] = field(default_factory=dict)
    on_event: Callable[[Event], None] = lambda event: None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Watch until cancelled."""
        consumer = AIOKafkaConsumer(
            *WATCHED_TOPICS,
            bootstrap_servers=self.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level=READ_COMMITTED,
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
        """Return the first event of a kind that satisfies `where`, and the monotonic time at which
        it was read. Raises Unavailable if there is none within `seconds`.
        """

        def first_match() -> tuple[Any, float] | None:
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
                await asyncio.wait_for(self._changed.wait_for(first_match), seconds)
            except TimeoutError:
                names = getattr(kinds, "__name__", kinds)
                raise Unavailable(
                    f"no {names} within {seconds:g} s; see ratchet.log in the demo's folder"
                ) from None
            match = first_match()
        assert match is not None
        return match

    def has_event(self, kind: type[Event], where: Callable[[Any], bool]) -> bool:
        return any(isinstance(event, kind) and where(event) for event, _ in self.seen)

    def closing_event_id(self, batch: BatchReady) -> str:
        """Return the id of the feedback event whose example completed a batch."""
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
    """Return every record that the topics contain now."""
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level=READ_COMMITTED,
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
