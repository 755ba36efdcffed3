"""Records of an imported file, the examples they become, and the error of a line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import Unprocessable
from shared.events import Message

MAX_RECORD_BYTES = 1 << 20
"""Limit of one record: the size of the largest event that Kafka accepts by default."""

SOURCE = "/ratchet/import"
"""Source in the IDs of imported examples."""

RecordFields = Mapping[str, Any]


class InvalidLine(Unprocessable):
    """A line that cannot be used; the others can. The reason quotes no content of the line."""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A record and the line that it starts on, from 1 (in Parquet: its row). `value` is the error
    of a record that cannot be read.
    """

    line: int
    value: RecordFields | InvalidLine


Records = Iterator[SourceRecord]


@dataclass(frozen=True, slots=True)
class ImportedExample:
    """A prompt with its answer. `rejected` is the answer that is worse than `answer`; `is_negative`
    marks an answer to avoid.

    `origin` is the source in the example's ID, `place` the document and the place in it that the
    answer is from. `is_held_out` decides about the evaluation split; if it is None, the hash of the
    prompt does.
    """

    messages: tuple[Message, ...]
    answer: str
    rejected: str | None = None
    is_negative: bool = False
    origin: str = SOURCE
    place: str | None = None
    is_held_out: bool | None = None


Examples = Iterator[ImportedExample]


def text_of(value: Any, field: str) -> str:
    """Return a text. Raises InvalidLine for another type, and for text that UTF-8 cannot encode."""
    if not isinstance(value, str):
        raise InvalidLine(f"expected a text, found {type_name(value)}", field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidLine(
            f"character {error.start + 1} is half of a surrogate pair, which no text can contain; "
            "write the file again as UTF-8",
            field,
        ) from error
    return value


def non_blank(value: Any, field: str) -> str:
    """Return a text with visible characters. Raises InvalidLine."""
    text = text_of(value, field)
    if not text.strip():
        raise InvalidLine("is blank; fill it in, or remove the line", field)
    return text


def type_name(value: Any) -> str:
    """Name the JSON type of a value."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
