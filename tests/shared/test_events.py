"""Golden examples: each event has one for each version, every example is used, and old ones decode for ever."""

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from shared.codec import decode, encode
from shared.events import EVENTS, Event, FeedbackScored
from shared.topics import TOPICS

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
BY_NAME = {event.type_name(): event for event in EVENTS}


def test_every_event_has_an_example_of_its_present_version() -> None:
    assert {path.stem for path in GOLDEN} >= set(BY_NAME)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_example_decodes_and_says_the_same_again(path: Path) -> None:
    said = json.loads(path.read_text())
    event: Event = BY_NAME[path.stem].model_validate(said)
    value, headers = encode(event, "/golden")
    assert json.loads(value) == said
    assert decode(value, headers, type(event)).event == event


def test_every_event_stands_on_exactly_one_topic() -> None:
    placed = [event for topic in TOPICS for event in topic.events]
    assert sorted(event.__name__ for event in placed) == sorted(event.__name__ for event in EVENTS)


def test_every_topic_of_the_flow_has_its_dead_letters() -> None:
    names = {topic.name for topic in TOPICS}
    assert {f"{topic.name}.dlq" for topic in TOPICS if topic.events} <= names


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event_type: event_type.__name__)
def test_a_field_that_may_be_null_may_be_left_out(event_type: type[Event]) -> None:
    """Null fields are not written, so one that had to be there could not be read back."""
    nullable = [name for name, field in event_type.model_fields.items() if type(None) in get_args(field.annotation)]
    assert [name for name in nullable if event_type.model_fields[name].is_required()] == []


def test_two_parts_of_a_reward_never_have_the_same_name() -> None:
    said = json.loads((Path(__file__).parent / "golden" / "ratchet.FeedbackScored.v1.json").read_text())
    part = {"name": "action", "value": 1.0, "weight": 1.0}
    with pytest.raises(ValidationError, match="the same name"):
        FeedbackScored.model_validate(said | {"parts": [part, part]})
