"""Operations on the dead letters of a broker: find, fetch, replay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.progress import Progress

from ratchet import console
from ratchet.dead_letters.replay import ReplayPlan, plan_replay, replay_letter
from ratchet.dead_letters.search import (
    DeadLetter,
    DeadLetterCollector,
    DeadLetterFilter,
    DeadLetterNotFound,
    letter_topics,
)
from ratchet.kafka_admin.topics import existing_topics
from shared.clock import Clock
from shared.events import Position
from shared.kafka.client import KafkaProducer
from shared.kafka.security import PLAINTEXT, Security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.dead_letters import format_position


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a replay, or of a dry run. `expired` counts dead letters that Kafka deleted
    after the search.
    """

    plan: ReplayPlan
    expired: int
    dry_run: bool

    @property
    def count(self) -> int:
        return len(self.plan.letters) - self.expired


async def find_letters(
    bootstrap_servers: str,
    topic: str | None,
    letter_filter: DeadLetterFilter,
    security: Security = PLAINTEXT,
) -> list[DeadLetter]:
    """Return the matching dead letters, oldest first. Raises DeadLetterNotFound for an unknown
    topic, and BusUnavailable.
    """
    async with _open(bootstrap_servers, topic, letter_filter, security) as reader:
        return await _read(reader, letter_filter)


async def fetch_letter(
    bootstrap_servers: str, at: Position, security: Security = PLAINTEXT
) -> tuple[DeadLetter, Record]:
    """Return one dead letter and its record. Raises DeadLetterNotFound, BusUnavailable."""
    letter_filter = DeadLetterFilter(id=at)
    async with _open(bootstrap_servers, None, letter_filter, security) as reader:
        for letter in await _read(reader, letter_filter):
            if record := await reader.read_at(letter.position):
                return letter, record
    raise DeadLetterNotFound(
        f"there is no dead letter with the position or source position {format_position(at)} "
        "(dead letters are kept for 30 days)"
    )


async def replay_letters(
    bootstrap_servers: str,
    topic: str | None,
    letter_filter: DeadLetterFilter,
    limit: int,
    attempts: int,
    again: bool,
    dry: bool,
    clock: Clock,
    security: Security = PLAINTEXT,
) -> ReplayResult:
    """Find dead letters and replay those that `plan_replay` selects.

    Raises DeadLetterNotFound, BusUnavailable, and Misconfigured if a topic rejects a record for its
    size.
    """
    existing = await existing_topics(bootstrap_servers, security)
    async with _open(bootstrap_servers, topic, letter_filter, security) as reader:
        letters = await _read(reader, letter_filter)
        plan = plan_replay(letters, limit, attempts, again)
        if missing := {letter.info.topic for letter in plan.letters} - existing:
            raise DeadLetterNotFound(
                f"the source topic {', '.join(sorted(missing))} does not exist any more; create it "
                "before the replay"
            )
        if dry or not plan.letters:
            return ReplayResult(plan, 0, dry)
        producer = KafkaProducer(bootstrap_servers, security)
        await producer.start()
        try:
            outcomes = [
                await replay_letter(letter, reader, producer, clock) for letter in plan.letters
            ]
        finally:
            await producer.stop()
    return ReplayResult(plan, outcomes.count(False), dry)


@asynccontextmanager
async def _open(
    bootstrap_servers: str, topic: str | None, letter_filter: DeadLetterFilter, security: Security
) -> AsyncIterator[KafkaTopicReader]:
    requested = topic if letter_filter.id is None else letter_filter.id.topic
    existing = await existing_topics(bootstrap_servers, security)
    reader = KafkaTopicReader(bootstrap_servers, letter_topics(existing, requested), security)
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


async def _read(reader: KafkaTopicReader, letter_filter: DeadLetterFilter) -> list[DeadLetter]:
    """Read up to the current end offsets, with a progress bar on a terminal."""
    collector = DeadLetterCollector(letter_filter)
    with Progress(
        console=console.err, transient=True, disable=not console.err.is_terminal
    ) as progress:
        task = progress.add_task("reading", total=await reader.lag())
        async for record in reader.iterate_new():
            collector.add(record)
            progress.advance(task)
    return collector.letters()
