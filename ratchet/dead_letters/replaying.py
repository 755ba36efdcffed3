"""Dead letters put back where they came from.

That a letter was replayed stands on its own topic and partition, as a record without a value behind
it: it lives as long as the letter does, which the replayed record need not. It is written after the
replay; a death in between replays the record once more, under the same `ratchet_replay_of` and with
the same event id in it, by which the services know it already.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ratchet.dead_letters.finding import DeadLetter
from shared.clock import Clock
from shared.events import Position
from shared.messaging.bus import Record
from shared.messaging.codec import Headers
from shared.messaging.dead_letters import original, replay_headers


class Letters(Protocol):
    """Dead-letter topics. Raises BusUnavailable."""

    async def at(self, position: Position) -> Record | None:
        """The record at a position, None when there is none any more."""


class Target(Protocol):
    """Puts a record on a partition and returns when it is durable. Raises BusUnavailable."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be replayed, the oldest first, and how many are not: replayed already, tried too
    often, beyond the limit.
    """

    letters: tuple[DeadLetter, ...]
    already: int
    exhausted: int
    left: int


def plan(letters: Iterable[DeadLetter], limit: int, attempts: int, again: bool) -> Plan:
    """Up to `limit` letters that were not replayed and have fewer than `attempts` behind them; all
    of them count when `again`.
    """
    found = list(letters)
    fresh = [letter for letter in found if again or letter.replayed is None]
    hopeful = [letter for letter in fresh if again or letter.notice.attempt < attempts]
    return Plan(
        tuple(hopeful[:limit]),
        len(found) - len(fresh),
        len(fresh) - len(hopeful),
        len(hopeful[limit:]),
    )


async def replay(letter: DeadLetter, letters: Letters, target: Target, clock: Clock) -> bool:
    """Put a letter's record back where it stood, key, value and headers as they were, then note it
    beside the letter.

    False when the letter has left its topic meanwhile.
    """
    record = await letters.at(letter.stands)
    if record is None:
        return False
    notice, ours = letter.notice, replay_headers(letter.notice, clock.now())
    await target.send(
        notice.topic, record.key, record.value, [*original(record.headers), *ours], notice.partition
    )
    await target.send(letter.stands.topic, letter.id.encode(), None, ours, letter.stands.partition)
    return True
