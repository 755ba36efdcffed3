"""Parsing of a request body into records for `feedback.received`: all of its events, or none and a
problem that names the first invalid one.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json

from services.feedback.intake.problems import IntakeProblem
from services.feedback.scoring import Policies, validated_feedback
from shared.errors import Unprocessable
from shared.events import FeedbackReceived
from shared.messaging.codec import decode
from shared.messaging.topics import MAX_APPLICATION_RECORD_BYTES

RECORD_OVERHEAD = 200
"""Maximum bytes that Kafka adds to key and value for a record that is alone in its batch."""


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """One event as a Kafka record: the JSON as it was sent, including unknown fields, so that it is
    the same as from an application's own producer.
    """

    event_id: str
    key: bytes
    value: bytes


def parse_events(body: bytes, max_events: int, policies: Policies) -> list[ParsedEvent]:
    """Return the events of a JSON body, in order: one event or a list, each bare or as a structured
    CloudEvent.

    Raises IntakeProblem for every event that the feedback service, with its current model files,
    would publish as a dead letter.
    """
    try:
        document: Any = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise IntakeProblem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    events = document if isinstance(document, list) else [document]
    if not events:
        raise IntakeProblem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "the list is empty; send at least one event"
        )
    if len(events) > max_events:
        raise IntakeProblem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(events)} events in one request; send at most {max_events}",
        )
    return [_parse_event(index, event, policies) for index, event in enumerate(events)]


def _parse_event(index: int, event: Any, policies: Policies) -> ParsedEvent:
    value = to_json(event)
    try:
        decoded = decode(value, (), FeedbackReceived)
        validated_feedback(decoded, policies)
    except Unprocessable as error:
        raise IntakeProblem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"event {index}: {error}",
            index=index,
            field=error.field,
        ) from error
    key = decoded.event.key.encode()
    if len(key) + len(value) + RECORD_OVERHEAD > MAX_APPLICATION_RECORD_BYTES:
        limit = MAX_APPLICATION_RECORD_BYTES - RECORD_OVERHEAD - len(key)
        detail = f"event {index} has {len(value)} bytes; the limit is {limit}"
        raise IntakeProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, index=index, field="")
    return ParsedEvent(decoded.event.event_id, key, value)
