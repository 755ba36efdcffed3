"""From the body of a request to records for `feedback.received`: all of it, or none and the first
event that is at fault.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json

from services.feedback.intake.responses import IntakeProblem
from services.feedback.scoring import Policies, validated_policy
from shared.errors import Unprocessable
from shared.events import FeedbackReceived
from shared.messaging.codec import decode
from shared.messaging.topics import MAX_APPLICATION_RECORD_BYTES

RECORD_OVERHEAD = 200
"""Bytes that a record has around its key and value in Kafka, at most, when it is alone in its
batch.
"""


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """One event, as it goes to Kafka: what was sent, unknown fields included, as an application
    with a producer would have sent it.
    """

    event_id: str
    key: bytes
    value: bytes


def parse_events(body: bytes, max_events: int, policies: Policies) -> list[ParsedEvent]:
    """The events of a body, in order: one, or a list of them, in JSON; each bare or as a structured
    CloudEvent.

    Whatever the feedback service would put among the dead letters, by the model files as they are,
    is refused here. Raises Problem.
    """
    try:
        said: Any = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise IntakeProblem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    events = said if isinstance(said, list) else [said]
    if not events:
        raise IntakeProblem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "the list is empty; send at least one event"
        )
    if len(events) > max_events:
        raise IntakeProblem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(events)} events at once; send at most {max_events}",
        )
    return [_parse_event(index, event, policies) for index, event in enumerate(events)]


def _parse_event(index: int, said: Any, policies: Policies) -> ParsedEvent:
    value = to_json(said)
    try:
        decoded = decode(value, (), FeedbackReceived)
        validated_policy(decoded, policies)
    except Unprocessable as error:
        raise IntakeProblem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"event {index}: {error}",
            index=index,
            field=error.field,
        ) from error
    key = decoded.event.key.encode()
    if len(key) + len(value) + RECORD_OVERHEAD > MAX_APPLICATION_RECORD_BYTES:
        detail = (
            f"event {index} is {len(value)} bytes long; Kafka takes "
            f"{MAX_APPLICATION_RECORD_BYTES - RECORD_OVERHEAD - len(key)}"
        )
        raise IntakeProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, index=index, field="")
    return ParsedEvent(decoded.event.event_id, key, value)
