"""Parsing of request bodies: the intake refuses exactly the events that the service would publish
as dead letters.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.intake.parsing import RECORD_OVERHEAD, parse_events
from services.feedback.intake.problems import IntakeProblem
from services.feedback.scoring import Policies, score
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.errors import Unprocessable
from shared.messaging.bus import Record
from shared.messaging.topics import MAX_APPLICATION_RECORD_BYTES

BASE = {"training": "base", "serving": "base.gguf"}
POLICIES = Policies(
    Models(
        {
            "support": ModelFile.model_validate({"model": "support", "base": BASE}),
            "strict": ModelFile.model_validate(
                {"model": "strict", "base": BASE, "reward": {"format": "json"}}
            ),
            "short": ModelFile.model_validate(
                {"model": "short", "base": BASE, "curation": {"longest_text": 100}}
            ),
        },
        Path(),
    )
)
EVENT: dict[str, Any] = {
    "event_id": "e",
    "occurred_at": "2026-01-01T00:00:00Z",
    "model": "support",
    "input": "q",
    "output": "a",
    "feedback_type": "thumbs_up",
}
CORRECTED = {"model": "strict", "feedback_type": "correction", "corrected_output": "no JSON"}


def refused(body: bytes, most_events: int = 10) -> tuple[int, dict[str, str | int]]:
    with pytest.raises(IntakeProblem) as problem:
        parse_events(body, most_events, POLICIES)
    return int(problem.value.status), problem.value.members


def test_one_event_or_a_list_becomes_keyed_records() -> None:
    (single,) = parse_events(
        json.dumps(EVENT | {"user_id": "ada", "unknown": [1, None]}).encode(), 10, POLICIES
    )
    assert (single.event_id, single.key, json.loads(single.value)) == (
        "e",
        b"ada",
        EVENT | {"user_id": "ada", "unknown": [1, None]},
    )
    multiple = parse_events(
        json.dumps(
            [EVENT | {"event_id": f"e{number}", "conversation_id": "c"} for number in range(3)]
        ).encode(),
        3,
        POLICIES,
    )
    assert [(entry.event_id, entry.key) for entry in multiple] == [
        ("e0", b"c"),
        ("e1", b"c"),
        ("e2", b"c"),
    ]


def test_a_structured_cloud_event_is_one_event() -> None:
    envelope = {
        "specversion": "1.0",
        "type": "app.feedback",
        "source": "/app",
        "id": "from-outside",
        "time": EVENT["occurred_at"],
    }
    data = {name: value for name, value in EVENT.items() if name not in ("event_id", "occurred_at")}
    (entry,) = parse_events(json.dumps(envelope | {"data": data}).encode(), 10, POLICIES)
    assert (entry.event_id, entry.key) == ("from-outside", b"from-outside")
    assert (
        score(
            Record("feedback.received", 0, 0, entry.key, entry.value, ()), POLICIES
        ).event.identity
        == "/app|from-outside"
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"validation_score": 1.5}, "validation_score"),
        ({"feedback_type": "liked"}, "feedback_type"),
        ({"model": "other"}, "model"),
        ({"occurred_at": "2026-01-01"}, "occurred_at"),
        ({"event_id": None}, "event_id"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"feedback_type": "correction"}, "corrected_output"),
        (CORRECTED, "corrected_output"),
        ({"model": "short", "output": "x" * 101}, "output"),
    ],
)
def test_the_problem_names_the_first_invalid_event_and_field(
    changes: dict[str, Any], field: str
) -> None:
    status, members = refused(json.dumps([EVENT, EVENT | changes, {}]).encode())
    assert status == 422
    assert members["index"] == 1
    assert str(members["field"]).startswith(field), members


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'"\\ud800"', 400),
        (b"[" * 10_000, 400),
        (json.dumps(EVENT).encode()[:-1] + b', "more": NaN}', 400),
        (b"[]", 422),
        (b"3", 422),
        (b"[[]]", 422),
        (json.dumps([EVENT] * 11).encode(), 413),
        (json.dumps(EVENT | {"output": "x" * MAX_APPLICATION_RECORD_BYTES}).encode(), 413),
    ],
)
def test_bodies_that_are_not_events_are_refused(body: bytes, status: int) -> None:
    assert refused(body)[0] == status


def test_the_largest_accepted_event_fits_into_a_record() -> None:
    spare = (
        MAX_APPLICATION_RECORD_BYTES
        - RECORD_OVERHEAD
        - len(json.dumps(EVENT, separators=(",", ":")))
        - len("e")
    )
    (entry,) = parse_events(
        json.dumps(EVENT | {"output": "x" * (spare + 1)}).encode(), 10, POLICIES
    )
    assert len(entry.value) + len(entry.key) + RECORD_OVERHEAD == MAX_APPLICATION_RECORD_BYTES
    assert refused(json.dumps(EVENT | {"output": "x" * (spare + 2)}).encode()) == (
        413,
        {"index": 0, "field": ""},
    )


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = [*EVENT, "validation_score", "corrected_output", "user_id", "tags", "data", "specversion"]
events = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([EVENT, EVENT | CORRECTED, {}]),
    st.dictionaries(
        st.sampled_from(
            [
                *EVENT,
                "validation_score",
                "corrected_output",
                "user_id",
                "tags",
                "data",
                "specversion",
            ]
        ),
        odd,
        max_size=3,
    ),
)


@given(events | odd)
def test_intake_and_service_accept_the_same_events(document: Any) -> None:
    try:
        entries = parse_events(json.dumps([document]).encode(), 10, POLICIES)
    except IntakeProblem:
        with pytest.raises(Unprocessable):
            score(
                Record("feedback.received", 0, 0, None, json.dumps(document).encode(), ()), POLICIES
            )
        return
    assert (
        score(
            Record("feedback.received", 0, 0, entries[0].key, entries[0].value, ()), POLICIES
        ).event.event_id
        == entries[0].event_id
    )
