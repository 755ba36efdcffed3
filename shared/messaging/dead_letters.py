"""What is said of a dead letter, in headers beside the record's own, and how a replayed record is
known again.

    ratchet_dlq_topic, _partition, _offset       where the record stood
    ratchet_dlq_reason, _field, _error           why it cannot be processed
    ratchet_dlq_service, _service_version, _at   who says so, and when
    ratchet_dlq_attempt                          1, and one more for each time that it was replayed before

    ratchet_replay_of        on a record that was replayed: where it stood at first; on the dead-letter topic: that it was replayed
    ratchet_replay_attempt   how many attempts it has behind it
    ratchet_replay_at        when it was replayed

Names that begin so are Ratchet's: what an application sends under them is not kept.
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from shared.errors import Unprocessable
from shared.events import Count, FrozenModel, Position
from shared.messaging.codec import Header, Headers
from shared.version import ratchet_version

DLQ_PREFIX = "ratchet_dlq_"
REPLAY_PREFIX = "ratchet_replay_"
REPLAY_OF, REPLAY_ATTEMPT, REPLAY_AT = (
    REPLAY_PREFIX + "of",
    REPLAY_PREFIX + "attempt",
    REPLAY_PREFIX + "at",
)

MAX_REASON = 1000
MAX_FIELD = 200

_PLACE = re.compile(r"([^/]+)/(\d{1,10})/(\d{1,19})")
_ATTEMPT = re.compile(rb"\d{1,6}")


class DeadLetterInfo(FrozenModel):
    """Where a record stood, why it cannot be processed, and who says so. Letters of before a field
    was added have its default.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str
    partition: Count
    offset: Count
    reason: str
    field: str = ""
    error: str = ""
    service: str = ""
    service_version: str = ""
    at: AwareDatetime
    attempt: Annotated[int, Field(ge=1)] = 1

    @classmethod
    def for_error(
        cls, source: Position, headers: Headers, error: Unprocessable, service: str, at: datetime
    ) -> "DeadLetterInfo":
        """What to say of the record at `source`, which came with `headers`."""
        return cls(
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            reason=_printable(error.reason, MAX_REASON),
            field=_printable(error.field, MAX_FIELD),
            error=type(error).__name__,
            service=service,
            service_version=ratchet_version(),
            at=at,
            attempt=previous_attempts(headers) + 1,
        )

    @classmethod
    def from_headers(cls, headers: Headers) -> "DeadLetterInfo | None":
        """What a record's headers say; None when it is no dead letter."""
        said = {
            name.removeprefix(DLQ_PREFIX): value.decode(errors="replace")
            for name, value in headers
            if value is not None and name.startswith(DLQ_PREFIX)
        }
        try:
            return cls.model_validate(said)
        except ValidationError:
            return None

    @property
    def source(self) -> Position:
        return Position(topic=self.topic, partition=self.partition, offset=self.offset)

    def headers(self) -> list[Header]:
        said = self.model_dump() | {"at": self.at.isoformat()}
        return [(DLQ_PREFIX + name, str(value).encode()) for name, value in said.items()]


def original_headers(headers: Headers) -> tuple[Header, ...]:
    """A record's own headers, in order, without ours."""
    return tuple(
        (name, value) for name, value in headers if not name.startswith((DLQ_PREFIX, REPLAY_PREFIX))
    )


def previous_attempts(headers: Headers) -> int:
    """How often a record was tried before it came here: 0 unless it was replayed."""
    said = dict(headers).get(REPLAY_ATTEMPT) or b""
    return int(said) if _ATTEMPT.fullmatch(said) else 0


def replay_headers(info: DeadLetterInfo, at: datetime) -> list[Header]:
    """What marks the replay of a letter, on the record that is replayed and on the dead-letter
    topic.
    """
    said = {
        REPLAY_OF: format_position(info.source),
        REPLAY_ATTEMPT: str(info.attempt),
        REPLAY_AT: at.isoformat(),
    }
    return [(name, value.encode()) for name, value in said.items()]


def read_replay(headers: Headers) -> tuple[Position, datetime] | None:
    """Which record was replayed, by where it stood, and when; None when the headers do not say."""
    said = {
        name: value.decode(errors="replace")
        for name, value in headers
        if value is not None and name.startswith(REPLAY_PREFIX)
    }
    try:
        return parse_position(said[REPLAY_OF]), datetime.fromisoformat(said[REPLAY_AT])
    except (KeyError, ValueError):
        return None


def format_position(at: Position) -> str:
    """`topic/partition/offset`."""
    return f"{at.topic}/{at.partition}/{at.offset}"


def parse_position(text: str) -> Position:
    """The inverse of `place`. Raises ValueError."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(f"expected topic/partition/offset, found {text!r}")
    return Position(topic=found[1], partition=int(found[2]), offset=int(found[3]))


def _printable(text: str, length: int) -> str:
    """Text that can be written whatever it quotes, and never so much that the letter does not fit
    on its topic.
    """
    written = text.encode(errors="backslashreplace").decode()
    return written if len(written) <= length else written[: length - 1] + "…"
