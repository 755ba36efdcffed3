"""The JSON Schemas accept and refuse the same events as the models of the services."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from ratchet.contracts.schemas import event_schema
from shared.events import EVENTS, MAX_ID, Event, FeedbackReceived, FeedbackScored
from tests.contracts.committed import EXAMPLES, GOLDEN, json_of

OLDER = sorted(GOLDEN.glob("*.older-*.json"))
ODD: tuple[Any, ...] = (
    None,
    "",
    "x",
    "x" * 300,
    "sha256:" + "0" * 64,
    "2026-05-04T03:02:01Z",
    0,
    -1,
    7,
    0.5,
    -0.5,
    1.5,
    True,
    [],
    ["x"],
    {},
)
NEW = "colour"


def validator(event: type[Event]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(event_schema(event), validate_formats=True)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_schema_and_model_agree_on_variants_of_examples(event: type[Event]) -> None:
    """Each value of an example is replaced by each odd value, omitted, or given an unknown key.

    Skips the joint length limit of source and id, which a schema cannot express.
    """
    fits = validator(event)
    tried, accepted = 0, 0
    for payload, change in variants(EXAMPLES[event.type_name()]):
        if event is FeedbackScored and len(str(payload.get("source"))) >= MAX_ID:
            continue
        model_takes = takes(event, payload)
        assert fits.is_valid(payload) == model_takes, change
        tried += 1
        accepted += model_takes
    assert tried > 40
    assert 0 < accepted < tried


def takes(event: type[Event], payload: Any) -> bool:
    try:
        event.model_validate_json(json.dumps(payload), strict=True)
    except ValidationError:
        return False
    return True


def variants(payload: Any) -> Iterator[tuple[Any, str]]:
    yield payload, "as it is"
    for path in paths(payload):
        for odd in ODD:
            yield (
                changed(payload, path, lambda part, key, odd=odd: part.__setitem__(key, odd)),
                f"{path} is {odd!r}",
            )
        yield changed(payload, path, lambda part, key: part.__delitem__(key)), f"without {path}"
        if isinstance(part_at(payload, path), dict):
            yield (
                changed(payload, path, lambda part, key: part[key].__setitem__(NEW, "green")),
                f"{path} with {NEW}",
            )
    yield payload | {NEW: "green"}, f"with {NEW}"


def paths(payload: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, part in payload.items() if isinstance(payload, dict) else enumerate(payload):
        yield (*before, key)
        if isinstance(part, dict | list):
            yield from paths(part, (*before, key))


def part_at(payload: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        payload = payload[key]
    return payload


def changed(payload: Any, path: tuple[Any, ...], change: Any) -> Any:
    copy = deepcopy(payload)
    change(part_at(copy, path[:-1]), path[-1])
    return copy


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_older_examples_fit_the_present_schema(path: Any) -> None:
    name = path.stem.partition(".older-")[0]
    event = next(event for event in EVENTS if event.type_name() == name)
    assert validator(event).is_valid(json_of(path))


def test_there_are_older_examples() -> None:
    assert len(OLDER) >= 2


def test_a_correction_requires_its_text() -> None:
    payload = EXAMPLES[FeedbackReceived.type_name()] | {
        "feedback_type": "correction",
        "corrected_output": "so",
    }
    fits = validator(FeedbackReceived)
    assert fits.is_valid(payload)
    without = {name: value for name, value in payload.items() if name != "corrected_output"}
    assert not fits.is_valid(without)
    assert not fits.is_valid(payload | {"corrected_output": None})
    assert fits.is_valid(without | {"feedback_type": "thumbs_down"})
