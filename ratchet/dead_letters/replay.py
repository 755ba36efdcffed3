"""Dead letters put back where they came from.

That a letter was replayed stands on its own topic and partition, as a record without a value behind
it: it lives as long as the letter does, which the replayed record need not. It is written after the
replay; a death in between replays the record once more, under the same `ratchet_replay_of` and with
the same event id in it, by which the services know it already.
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
    """Dead-letter topics. Raises BusUnavailable."""

    async def read_at(self, position: Position) -> Record | None:
        """The record at a position, None when there is none any more."""


class ReplayTarget(Protocol):
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
class ReplayPlan:
    """What is to be replayed, the oldest first, and how many are not: replayed already, tried too
    often, beyond the limit.
    """

    letters: tuple[DeadLetter, ...]
    already_replayed: int
    over_attempts: int
    over_limit: int


def plan_replay(
    letters: Iterable[DeadLetter], limit: int, attempts: int, again: bool
) -> ReplayPlan:
    """Up to `limit` letters that were not replayed and have fewer than `attempts` behind them; all
    of them count when `again`.
    """
    found = list(letters)
    fresh = [letter for letter in found if again or letter.replayed is None]
    hopeful = [letter for letter in fresh if again or letter.info.attempt < attempts]
    return ReplayPlan(
        tuple(hopeful[:limit]),
        len(found) - len(fresh),
        len(fresh) - len(hopeful),
        len(hopeful[limit:]),
    )


async def replay_letter(
    letter: DeadLetter, letters: LetterReader, target: ReplayTarget, clock: Clock
) -> bool:
    """Put a letter's record back where it stood, key, value and headers as they were, then note it
    beside the letter.

    False when the letter has left its topic meanwhile.
    """
    record = await letters.read_at(letter.position)
    if record is None:
        return False
    notice, ours = letter.info, replay_headers(letter.info, clock.now())
    await target.send(
        notice.topic,
        record.key,
        record.value,
        [*original_headers(record.headers), *ours],
        notice.partition,
    )
    await target.send(
        letter.position.topic, letter.id.encode(), None, ours, letter.position.partition
    )
    return True
