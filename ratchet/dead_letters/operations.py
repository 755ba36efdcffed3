"""Dead letters on a broker: found, fetched, replayed."""

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
    """What a replay did, or would do when it was `dry`; `gone` are letters that left their topic
    meanwhile.
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
    """The letters that are wanted, the oldest first. Raises NotThere for a topic, BusUnavailable."""
    async with _open(bootstrap_servers, topic, letter_filter, security) as reader:
        return await _read(reader, letter_filter)


async def fetch_letter(
    bootstrap_servers: str, at: Position, security: Security = PLAINTEXT
) -> tuple[DeadLetter, Record]:
    """One letter with its content. Raises NotThere, BusUnavailable."""
    wanted = DeadLetterFilter(id=at)
    async with _open(bootstrap_servers, None, wanted, security) as reader:
        for letter in await _read(reader, wanted):
            if record := await reader.read_at(letter.position):
                return letter, record
    raise DeadLetterNotFound(
        f"there is no dead letter at or about {format_position(at)}, or none any more: they are kept "
        "for 30 days"
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
    """Find letters and replay those that may be. Raises NotThere, BusUnavailable; Misconfigured
    when a topic refuses one for its size.
    """
    existing = await existing_topics(bootstrap_servers, security)
    async with _open(bootstrap_servers, topic, letter_filter, security) as reader:
        planned = plan_replay(await _read(reader, letter_filter), limit, attempts, again)
        if missing := {letter.info.topic for letter in planned.letters} - existing:
            raise DeadLetterNotFound(
                f"letters came from {', '.join(sorted(missing))}, which is not there any more"
            )
        if dry or not planned.letters:
            return ReplayResult(planned, 0, dry)
        producer = KafkaProducer(bootstrap_servers, security)
        await producer.start()
        try:
            done = [
                await replay_letter(letter, reader, producer, clock) for letter in planned.letters
            ]
        finally:
            await producer.stop()
    return ReplayResult(planned, done.count(False), dry)


@asynccontextmanager
async def _open(
    bootstrap_servers: str, topic: str | None, wanted: DeadLetterFilter, security: Security
) -> AsyncIterator[KafkaTopicReader]:
    asked = topic if wanted.id is None else wanted.id.topic
    reader = KafkaTopicReader(
        bootstrap_servers,
        letter_topics(await existing_topics(bootstrap_servers, security), asked),
        security,
    )
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


async def _read(reader: KafkaTopicReader, wanted: DeadLetterFilter) -> list[DeadLetter]:
    """Read to the present end; a terminal shows how far it is."""
    reading = DeadLetterCollector(wanted)
    with Progress(
        console=console.err, transient=True, disable=not console.err.is_terminal
    ) as progress:
        task = progress.add_task("reading", total=await reader.lag())
        async for record in reader.iterate_new():
            reading.add(record)
            progress.advance(task)
    return reading.letters()
