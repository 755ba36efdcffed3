"""Golden examples: each event has one with all its fields, and older ones (`.older-N`) stay
decodable.
"""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from shared.events import EVENTS, Event, FeedbackScored
from shared.messaging.codec import decode, encode
from shared.messaging.topics import TOPICS

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
BY_NAME = {event.type_name(): event for event in EVENTS}


def test_every_event_has_an_example_of_its_present_version() -> None:
    assert {path.stem for path in GOLDEN} >= set(BY_NAME)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_example_survives_a_round_trip(path: Path) -> None:
    """An older example keeps all its values; fields added since have defaults."""
    example = json.loads(path.read_text())
    name, _, older = path.stem.partition(".older-")
    event: Event = BY_NAME[name].model_validate(example)
    value, headers = encode(event, "/golden")
    assert contains(json.loads(value), example) if older else json.loads(value) == example
    assert decode(value, headers, type(event)).event == event


def contains(actual: Any, expected: Any) -> bool:
    """Return True if `actual` contains every field of `expected`, recursively."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            name in actual and contains(actual[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(contains, actual, expected))
        )
    return bool(actual == expected)


def test_every_event_is_on_exactly_one_topic() -> None:
    placed = [event for topic in TOPICS for event in topic.events]
    assert sorted(event.__name__ for event in placed) == sorted(event.__name__ for event in EVENTS)


def test_every_event_topic_has_a_dead_letter_topic() -> None:
    names = {topic.name for topic in TOPICS}
    assert {f"{topic.name}.dlq" for topic in TOPICS if topic.events} <= names


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event_type: event_type.__name__)
def test_nullable_fields_may_be_omitted(event_type: type[Event]) -> None:
    """Null fields are not written, so a required nullable field could not be read back."""
    nullable = [
        name
        for name, field in event_type.model_fields.items()
        if type(None) in get_args(field.annotation)
    ]
    assert [name for name in nullable if event_type.model_fields[name].is_required()] == []


def test_reward_parts_have_unique_names() -> None:
    fields = json.loads(
        (Path(__file__).parent / "golden" / "ratchet.FeedbackScored.v1.json").read_text()
    )
    part = {"name": "action", "value": 1.0, "weight": 1.0}
    with pytest.raises(ValidationError, match="the same name"):
        FeedbackScored.model_validate(fields | {"parts": [part, part]})
