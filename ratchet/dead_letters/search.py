"""Which dead letters there are: put together from the records of their topics, filtered, the oldest
first.
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

_AGO = re.compile(r"(\d{1,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DeadLetterNotFound(RatchetError):
    """No such topic or letter; the message says what there is."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter without its content, of `size` bytes; `stands` is its place on the dead-letter
    topic.
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
    """Which letters: `reason` is a part of it, in upper or lower case; `field` is a path or the
    beginning of one; `id` is the place of a letter or of the record that it is about.
    """

    reason: str | None = None
    field: str | None = None
    model: str | None = None
    since: datetime | None = None
    id: Position | None = None

    def matches(self, record: Record, notice: DeadLetterInfo) -> bool:
        return (
            (self.id is None or self.id in (record.position, notice.source))
            and (self.since is None or notice.at >= self.since)
            and (self.reason is None or self.reason.lower() in notice.reason.lower())
            and (self.field is None or f"{notice.field}.".startswith(f"{self.field}."))
            and (
                self.model is None
                or try_decode_data(record.value, record.headers).get("model") == self.model
            )
        )


class DeadLetterCollector:
    """Letters put together from the records of their topics, whose partitions may come in any
    order.

    Letters of one source position are one letter: a service that died between a letter and its
    commit has written it twice.
    """

    def __init__(self, wanted: DeadLetterFilter) -> None:
        self._filter = wanted
        self._letters: dict[Position, DeadLetter] = {}
        self._replayed: dict[Position, datetime] = {}

    def add(self, record: Record) -> None:
        notice = DeadLetterInfo.from_headers(record.headers)
        if notice is None:
            if (replayed := read_replay(record.headers)) is not None:
                source, at = replayed
                self._replayed[source] = max(at, self._replayed.get(source, at))
        elif self._filter.matches(record, notice):
            found = DeadLetter(record.position, notice, len(record.value or b""))
            self._letters[notice.source] = min(
                found, self._letters.get(notice.source, found), key=_age
            )

    def letters(self) -> list[DeadLetter]:
        """The oldest first."""
        found = (
            replace(letter, replayed=self._replayed.get(source))
            for source, letter in self._letters.items()
        )
        return sorted(found, key=_age)


def letter_topics(existing: Iterable[str], topic: str | None) -> list[str]:
    """The dead-letter topics to read: the one of `asked`, which may be named by its source, or all.
    Raises NotThere.
    """
    found = sorted(topic for topic in existing if topic.endswith(DEAD_LETTER_SUFFIX))
    wanted = (
        found
        if topic is None
        else [topic if topic.endswith(DEAD_LETTER_SUFFIX) else dead_letter_topic(topic)]
    )
    if not found:
        raise DeadLetterNotFound(
            "there are no dead-letter topics here; `ratchet topics apply` creates them"
        )
    if not set(wanted) <= set(found):
        raise DeadLetterNotFound(
            f"there is no topic {wanted[0]} here; there are {', '.join(found)}"
        )
    return wanted


def parse_letter_id(text: str) -> Position:
    """The place that an id names. Raises Unprocessable."""
    try:
        return parse_position(text)
    except ValueError as error:
        raise Unprocessable(f"{error}, as `ratchet dlq list` prints it", "id") from error


def parse_since(text: str, now: datetime) -> datetime:
    """An RFC 3339 time, or how long ago: `90s`, `30m`, `12h`, `7d`. Raises Unprocessable."""
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Unprocessable(
            f"expected a time like 2026-01-31T12:00:00Z or 12h, found {text!r}", "since"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def _age(letter: DeadLetter) -> tuple[datetime, str, int, int]:
    return letter.info.at, letter.position.topic, letter.position.partition, letter.position.offset
