"""What is said of an answer, checked by the rules of `FeedbackReceived`, as a record: one line of
JSON under a key.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict, get_args
from uuid import uuid4

FeedbackType = Literal[
    "validation", "thumbs_up", "thumbs_down", "correction", "accepted", "regenerated", "retracted"
]
Role = Literal["system", "user", "assistant", "tool"]

MAX_EVENT_BYTES = 1_000_000
"""Bytes of the largest event: Kafka's default bound for a record, less what a record has around its
value.
"""

_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAX_ID = 256
_IDS = ("event_id", "model_version", "user_id", "conversation_id", "response_id")


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


class FeedbackFields(TypedDict, total=False):
    """The arguments of `record_feedback`. `model`, `input` and `output` may be left out when
    `response_id` names a captured answer.
    """

    model: str
    """as its model file in Ratchet is called"""
    input: str | Sequence[Message]
    """the prompt, or the conversation up to the answer"""
    output: str
    """the answer"""
    feedback_type: FeedbackType
    validation_score: float | None
    """what an automatic check gave, from 0 to 1"""
    corrected_output: str | None
    """required for a `correction`"""
    model_version: str | None
    user_id: str | None
    conversation_id: str | None
    response_id: str | None
    tags: Mapping[str, str] | None
    event_id: str | None
    """the same id again counts once; made up where there is none"""
    occurred_at: datetime | None
    """with a time zone; now where there is none"""


class InvalidFeedback(ValueError):
    """Feedback that Ratchet would refuse; nothing was recorded. `field` is the argument that is at
    fault.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """An event on its way: `value` is one line of JSON, `key` keeps what belongs together in order."""

    event_id: str
    key: bytes
    value: bytes


def build_record(said: FeedbackFields, now: datetime) -> FeedbackRecord:
    """The record that says it, with an id and a time where there was none. Raises InvalidFeedback."""
    event: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    event.setdefault("event_id", str(uuid4()))
    occurred_at = event.get("occurred_at", now)
    _check(event, occurred_at)
    event["occurred_at"] = occurred_at.astimezone(UTC).isoformat()
    if not isinstance(event["input"], str):
        event["input"] = [
            {"role": turn["role"], "content": turn["content"]} for turn in event["input"]
        ]
    if "tags" in event:
        event["tags"] = dict(event["tags"])
    try:
        value = json.dumps(
            event, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except UnicodeEncodeError as error:
        raise InvalidFeedback(
            "event", f"half of a surrogate pair cannot be written as UTF-8: {error.reason}"
        ) from None
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidFeedback(
            "event", f"is {len(value)} bytes long; at most {MAX_EVENT_BYTES} fit in a record"
        )
    return FeedbackRecord(event["event_id"], _key_of(event), value)


def parse_line(line: bytes) -> FeedbackRecord | None:
    """The record that a line of JSON is; None for what is none."""
    try:
        event = json.loads(line)
        return FeedbackRecord(event["event_id"], _key_of(event), line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _key_of(event: Mapping[str, Any]) -> bytes:
    key: str = event.get("conversation_id") or event.get("user_id") or event["event_id"]
    return key.encode()


def _check(event: Mapping[str, Any], occurred_at: object) -> None:
    for name in event:
        if name not in FeedbackFields.__annotations__:
            raise InvalidFeedback(name, "is no argument of feedback")
    for name in ("model", "input", "output", "feedback_type"):
        if name not in event:
            raise InvalidFeedback(name, "is missing, and no captured answer says it")
    if not (isinstance(event["model"], str) and _MODEL.fullmatch(event["model"])):
        raise InvalidFeedback(
            "model", "expected the name of a model in Ratchet: a-z 0-9 . _ - and at most 63 of them"
        )
    _check_input(event["input"])
    _require(isinstance(event["output"], str), "output", "a string")
    _require(
        event["feedback_type"] in get_args(FeedbackType),
        "feedback_type",
        " or ".join(get_args(FeedbackType)),
    )
    if "validation_score" in event:
        score = event["validation_score"]
        number = isinstance(score, int | float) and not isinstance(score, bool)
        _require(
            number and math.isfinite(score) and 0 <= score <= 1,
            "validation_score",
            "a number from 0 to 1",
        )
    corrected = event.get("corrected_output")
    _require(
        corrected is None or (isinstance(corrected, str) and corrected != ""),
        "corrected_output",
        "a string that is not empty",
    )
    _require(
        corrected is not None or event["feedback_type"] != "correction",
        "corrected_output",
        "the right answer, for a correction",
    )
    for name in _IDS:
        if name in event:
            _require(
                isinstance(event[name], str) and 1 <= len(event[name]) <= _MAX_ID,
                name,
                f"a string of 1 to {_MAX_ID} characters",
            )
    if "tags" in event:
        tags = event["tags"]
        pairs = isinstance(tags, Mapping) and all(
            isinstance(part, str) for pair in tags.items() for part in pair
        )
        _require(pairs, "tags", "a map of strings")
    _require(
        isinstance(occurred_at, datetime) and occurred_at.tzinfo is not None,
        "occurred_at",
        "a datetime with a time zone",
    )


def _check_input(said: object) -> None:
    if isinstance(said, str):
        _require(said != "", "input", "a prompt that is not empty")
        return
    _require(
        isinstance(said, Sequence) and len(said) > 0,
        "input",
        "a string, or a list of {role, content}",
    )
    assert isinstance(said, Sequence)
    for number, turn in enumerate(said):
        place = f"input.{number}"
        _require(isinstance(turn, Mapping), place, "a {role, content}")
        _require(turn.get("role") in get_args(Role), f"{place}.role", " or ".join(get_args(Role)))
        _require(isinstance(turn.get("content"), str), f"{place}.content", "a string")


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise InvalidFeedback(field, f"expected {expected}")
