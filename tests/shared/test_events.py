"""Golden examples: each event has one with all its fields; those of earlier days stay beside it
(`.older-N`) and decode for ever.
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
    """An older one says nothing less; what came since has a default."""
    said = json.loads(path.read_text())
    name, _, older = path.stem.partition(".older-")
    event: Event = BY_NAME[name].model_validate(said)
    value, headers = encode(event, "/golden")
    assert says(json.loads(value), said) if older else json.loads(value) == said
    assert decode(value, headers, type(event)).event == event


def says(now: Any, then: Any) -> bool:
    """Return whether `now` contains every field of `then` with the same value."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(
            name in now and says(now[name], value) for name, value in then.items()
        )
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(says, now, then))
    return bool(now == then)


def test_every_event_is_on_exactly_one_topic() -> None:
    placed = [event for topic in TOPICS for event in topic.events]
    assert sorted(event.__name__ for event in placed) == sorted(event.__name__ for event in EVENTS)


def test_every_event_topic_has_a_dead_letter_topic() -> None:
    names = {topic.name for topic in TOPICS}
    assert {f"{topic.name}.dlq" for topic in TOPICS if topic.events} <= names


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event_type: event_type.__name__)
def test_nullable_fields_may_be_omitted(event_type: type[Event]) -> None:
    """Null fields are not written, so one that had to be there could not be read back."""
    nullable = [
        name
        for name, field in event_type.model_fields.items()
        if type(None) in get_args(field.annotation)
    ]
    assert [name for name in nullable if event_type.model_fields[name].is_required()] == []


def test_reward_parts_have_unique_names() -> None:
    said = json.loads(
        (Path(__file__).parent / "golden" / "ratchet.FeedbackScored.v1.json").read_text()
    )
    part = {"name": "action", "value": 1.0, "weight": 1.0}
    with pytest.raises(ValidationError, match="the same name"):
        FeedbackScored.model_validate(said | {"parts": [part, part]})
