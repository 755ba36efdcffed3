"""Headers of dead letters and of replayed records, added to the record's own.

    ratchet_dlq_topic, _partition, _offset       position of the record
    ratchet_dlq_reason, _field, _error           why it cannot be processed
    ratchet_dlq_service, _service_version, _at   the service that gave up, and when
    ratchet_dlq_attempt                          1, plus one for each earlier replay

    ratchet_replay_of        on a replayed record: its first position;
                             on the dead-letter topic: the position of the replayed dead letter
    ratchet_replay_attempt   number of previous attempts
    ratchet_replay_at        time of the replay

These prefixes are reserved: such headers from applications are dropped.
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

_POSITION = re.compile(r"([^/]+)/(\d{1,10})/(\d{1,19})")
_ATTEMPT = re.compile(rb"\d{1,6}")


class DeadLetterInfo(FrozenModel):
    """Position of a dead letter's record, the reason, and the service that gave up.

    Fields added later have a default, so that older dead letters stay readable.
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
        """Build the information for the record at `source` with `headers`."""
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
        """Read the information from a record's headers; None if it is not a dead letter."""
        fields = {
            name.removeprefix(DLQ_PREFIX): value.decode(errors="replace")
            for name, value in headers
            if value is not None and name.startswith(DLQ_PREFIX)
        }
        try:
            return cls.model_validate(fields)
        except ValidationError:
            return None

    @property
    def source(self) -> Position:
        return Position(topic=self.topic, partition=self.partition, offset=self.offset)

    def headers(self) -> list[Header]:
        fields = self.model_dump() | {"at": self.at.isoformat()}
        return [(DLQ_PREFIX + name, str(value).encode()) for name, value in fields.items()]


def original_headers(headers: Headers) -> tuple[Header, ...]:
    """Return the record's own headers, in order, without Ratchet's."""
    return tuple(
        (name, value) for name, value in headers if not name.startswith((DLQ_PREFIX, REPLAY_PREFIX))
    )


def previous_attempts(headers: Headers) -> int:
    """Return the number of earlier attempts: 0 unless the record was replayed."""
    attempt = dict(headers).get(REPLAY_ATTEMPT) or b""
    return int(attempt) if _ATTEMPT.fullmatch(attempt) else 0


def replay_headers(info: DeadLetterInfo, at: datetime) -> list[Header]:
    """Return the headers that mark a replay on the record and on the dead-letter topic."""
    values = {
        REPLAY_OF: format_position(info.source),
        REPLAY_ATTEMPT: str(info.attempt),
        REPLAY_AT: at.isoformat(),
    }
    return [(name, value.encode()) for name, value in values.items()]


def read_replay(headers: Headers) -> tuple[Position, datetime] | None:
    """Return the position of a replayed record and the time of the replay; None when the headers
    have neither.
    """
    values = {
        name: value.decode(errors="replace")
        for name, value in headers
        if value is not None and name.startswith(REPLAY_PREFIX)
    }
    try:
        return parse_position(values[REPLAY_OF]), datetime.fromisoformat(values[REPLAY_AT])
    except (KeyError, ValueError):
        return None


def format_position(position: Position) -> str:
    """Format as `topic/partition/offset`."""
    return f"{position.topic}/{position.partition}/{position.offset}"


def parse_position(text: str) -> Position:
    """Parse `topic/partition/offset`. Raises ValueError."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected topic/partition/offset, found {text!r}")
    return Position(topic=match[1], partition=int(match[2]), offset=int(match[3]))


def _printable(text: str, length: int) -> str:
    """Make text encodable whatever it quotes, and truncate it so that the dead letter fits its
    topic.
    """
    encodable = text.encode(errors="backslashreplace").decode()
    return encodable if len(encodable) <= length else encodable[: length - 1] + "…"
