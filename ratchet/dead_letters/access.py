"""Dead letters on a broker: found, fetched, replayed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.progress import Progress

from ratchet import console
from ratchet.dead_letters.finding import DeadLetter, NotThere, Reading, Wanted, letter_topics
from ratchet.dead_letters.replaying import Plan, plan, replay
from ratchet.kafka_admin.topics import existing_topics
from shared.clock import Clock
from shared.events import Position
from shared.kafka.client import KafkaProducer
from shared.kafka.security import OPEN, Security
from shared.kafka.topic_reader import KafkaReader
from shared.messaging.bus import Record
from shared.messaging.dead_letters import place


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did, or would do when it was `dry`; `gone` are letters that left their topic
    meanwhile.
    """

    plan: Plan
    gone: int
    dry: bool

    @property
    def count(self) -> int:
        return len(self.plan.letters) - self.gone


async def find(
    bootstrap_servers: str, topic: str | None, wanted: Wanted, security: Security = OPEN
) -> list[DeadLetter]:
    """The letters that are wanted, the oldest first. Raises NotThere for a topic, BusUnavailable."""
    async with _open(bootstrap_servers, topic, wanted, security) as reader:
        return await _read(reader, wanted)


async def fetch(
    bootstrap_servers: str, at: Position, security: Security = OPEN
) -> tuple[DeadLetter, Record]:
    """One letter with its content. Raises NotThere, BusUnavailable."""
    wanted = Wanted(id=at)
    async with _open(bootstrap_servers, None, wanted, security) as reader:
        for letter in await _read(reader, wanted):
            if record := await reader.at(letter.stands):
                return letter, record
    raise NotThere(
        f"there is no dead letter at or about {place(at)}, or none any more: they are kept "
        "for 30 days"
    )


async def replay_found(
    bootstrap_servers: str,
    topic: str | None,
    wanted: Wanted,
    limit: int,
    attempts: int,
    again: bool,
    dry: bool,
    clock: Clock,
    security: Security = OPEN,
) -> Replayed:
    """Find letters and replay those that may be. Raises NotThere, BusUnavailable; Misconfigured
    when a topic refuses one for its size.
    """
    existing = await existing_topics(bootstrap_servers, security)
    async with _open(bootstrap_servers, topic, wanted, security) as reader:
        planned = plan(await _read(reader, wanted), limit, attempts, again)
        if missing := {letter.notice.topic for letter in planned.letters} - existing:
            raise NotThere(
                f"letters came from {', '.join(sorted(missing))}, which is not there any more"
            )
        if dry or not planned.letters:
            return Replayed(planned, 0, dry)
        producer = KafkaProducer(bootstrap_servers, security)
        await producer.start()
        try:
            done = [await replay(letter, reader, producer, clock) for letter in planned.letters]
        finally:
            await producer.stop()
    return Replayed(planned, done.count(False), dry)


@asynccontextmanager
async def _open(
    bootstrap_servers: str, topic: str | None, wanted: Wanted, security: Security
) -> AsyncIterator[KafkaReader]:
    asked = topic if wanted.id is None else wanted.id.topic
    reader = KafkaReader(
        bootstrap_servers,
        letter_topics(await existing_topics(bootstrap_servers, security), asked),
        security,
    )
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


async def _read(reader: KafkaReader, wanted: Wanted) -> list[DeadLetter]:
    """Read to the present end; a terminal shows how far it is."""
    reading = Reading(wanted)
    with Progress(
        console=console.err, transient=True, disable=not console.err.is_terminal
    ) as progress:
        task = progress.add_task("reading", total=await reader.behind())
        async for record in reader.up_to_now():
            reading.add(record)
            progress.advance(task)
    return reading.letters()
