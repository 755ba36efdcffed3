"""Replay of dead letters: publish their records to the source partition again.

A record without a value, on the dead letter's own topic and partition, marks it as replayed. So the
mark lives as long as the dead letter, which the replayed record may not. The mark is written after
the replay: a crash in between causes a second replay under the same `ratchet_replay_of` and with
the same event id, which the services drop as a duplicate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ratchet.dead_letters.search import DeadLetter
from shared.clock import Clock
from shared.events import Position
from shared.messaging.bus import Record
from shared.messaging.codec import Headers
from shared.messaging.dead_letters import original_headers, replay_headers


class LetterReader(Protocol):
    """Reads records of dead-letter topics. Raises BusUnavailable."""

    async def read_at(self, position: Position) -> Record | None:
        """Return the record at a position, None after Kafka deleted it."""


class ReplayTarget(Protocol):
    """Publishes a record to a partition; returns when it is durable. Raises BusUnavailable."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The dead letters to replay, oldest first, and the numbers of those that are not: replayed
    before, with too many attempts, over the limit.
    """

    letters: tuple[DeadLetter, ...]
    already_replayed: int
    over_attempts: int
    over_limit: int


def plan_replay(
    letters: Iterable[DeadLetter], limit: int, attempts: int, again: bool
) -> ReplayPlan:
    """Select up to `limit` dead letters that were not replayed before and have fewer than
    `attempts` attempts. With `again` neither condition applies.
    """
    matching = list(letters)
    pending = [letter for letter in matching if again or letter.replayed is None]
    eligible = [letter for letter in pending if again or letter.info.attempt < attempts]
    return ReplayPlan(
        tuple(eligible[:limit]),
        len(matching) - len(pending),
        len(pending) - len(eligible),
        len(eligible[limit:]),
    )


async def replay_letter(
    letter: DeadLetter, letters: LetterReader, target: ReplayTarget, clock: Clock
) -> bool:
    """Publish a dead letter's record to its source partition, with the original key, value and
    headers, then mark the dead letter as replayed.

    Returns False if Kafka deleted the dead letter after the search.
    """
    record = await letters.read_at(letter.position)
    if record is None:
        return False
    info, position = letter.info, letter.position
    added = replay_headers(info, clock.now())
    headers = [*original_headers(record.headers), *added]
    await target.send(info.topic, record.key, record.value, headers, info.partition)
    await target.send(position.topic, letter.id.encode(), None, added, position.partition)
    return True
