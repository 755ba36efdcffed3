"""Search in dead letters: pure functions that collect, filter and sort the records of their
topics.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shared.errors import RatchetError, Unprocessable
from shared.events import Position
from shared.messaging.bus import Record
from shared.messaging.codec import try_decode_data
from shared.messaging.dead_letters import (
    DeadLetterInfo,
    format_position,
    parse_position,
    read_replay,
)
from shared.messaging.topics import DEAD_LETTER_SUFFIX, dead_letter_topic

_AGE = re.compile(r"(\d{1,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DeadLetterNotFound(RatchetError):
    """The topic or dead letter does not exist; the message names what exists."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter without its content. `position` is its place on the dead-letter topic, `size`
    the bytes of its value.
    """

    position: Position
    info: DeadLetterInfo
    size: int
    replayed: datetime | None = None

    @property
    def id(self) -> str:
        return format_position(self.position)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Criteria that must all hold. `reason` is a part of the reason, in any letter case; `field` a
    path or its beginning; `id` the position of a dead letter or of its source record.
    """

    reason: str | None = None
    field: str | None = None
    model: str | None = None
    since: datetime | None = None
    id: Position | None = None

    def matches(self, record: Record, info: DeadLetterInfo) -> bool:
        return (
            (self.id is None or self.id in (record.position, info.source))
            and (self.since is None or info.at >= self.since)
            and (self.reason is None or self.reason.lower() in info.reason.lower())
            and (self.field is None or f"{info.field}.".startswith(f"{self.field}."))
            and (
                self.model is None
                or try_decode_data(record.value, record.headers).get("model") == self.model
            )
        )


class DeadLetterCollector:
    """Collects dead letters from the records of their topics, with partitions in any order.

    Dead letters with the same source position count as one: a service that crashed between a dead
    letter and its commit wrote it twice.
    """

    def __init__(self, letter_filter: DeadLetterFilter) -> None:
        self._filter = letter_filter
        self._letters: dict[Position, DeadLetter] = {}
        self._replayed: dict[Position, datetime] = {}

    def add(self, record: Record) -> None:
        info = DeadLetterInfo.from_headers(record.headers)
        if info is None:
            if (replayed := read_replay(record.headers)) is not None:
                source, at = replayed
                self._replayed[source] = max(at, self._replayed.get(source, at))
        elif self._filter.matches(record, info):
            letter = DeadLetter(record.position, info, len(record.value or b""))
            previous = self._letters.get(info.source, letter)
            self._letters[info.source] = min(letter, previous, key=_age)

    def letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        letters = (
            replace(letter, replayed=self._replayed.get(source))
            for source, letter in self._letters.items()
        )
        return sorted(letters, key=_age)


def letter_topics(existing: Iterable[str], topic: str | None) -> list[str]:
    """Return the dead-letter topics to read: all, or the one of `topic`, which may be the source
    topic. Raises DeadLetterNotFound.
    """
    available = sorted(name for name in existing if name.endswith(DEAD_LETTER_SUFFIX))
    if not available:
        raise DeadLetterNotFound(
            "there are no dead-letter topics here; `ratchet topics apply` creates them"
        )
    if topic is None:
        return available
    requested = topic if topic.endswith(DEAD_LETTER_SUFFIX) else dead_letter_topic(topic)
    if requested not in available:
        raise DeadLetterNotFound(
            f"there is no topic {requested} here; there are {', '.join(available)}"
        )
    return [requested]


def parse_letter_id(text: str) -> Position:
    """Parse `topic/partition/offset`. Raises Unprocessable."""
    try:
        return parse_position(text)
    except ValueError as error:
        raise Unprocessable(f"{error}, as `ratchet dlq list` prints it", "id") from error


def parse_since(text: str, now: datetime) -> datetime:
    """Parse an RFC 3339 time, or an age such as `90s`, `30m`, `12h`, `7d`. Raises Unprocessable."""
    if age := _AGE.fullmatch(text):
        return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Unprocessable(
            f"expected a time like 2026-01-31T12:00:00Z or 12h, found {text!r}", "since"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=now.tzinfo)


def _age(letter: DeadLetter) -> tuple[datetime, str, int, int]:
    position = letter.position
    return letter.info.at, position.topic, position.partition, position.offset
