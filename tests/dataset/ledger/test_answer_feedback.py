"""Combined reward of all feedback on an answer."""

from typing import Any

import pytest

from services.dataset.ledger.answer_feedback import answer_id_of
from shared.events import RewardPart
from shared.storage.dataset_entries import DatasetEntry
from tests.support.scored_feedback import SimulatedShard, model_file, scored, words

FIELDS: dict[str, Any] = {"input": words("p"), "output": words("a"), "user_id": "ann"}


def part(name: str, value: float) -> RewardPart:
    return RewardPart(name=name, value=value, weight=1.0)


def thumb(event_id: str, up: bool = True, **fields: Any) -> Any:
    kind, value = ("thumbs_up", 1.0) if up else ("thumbs_down", -1.0)
    return scored(event_id, kind, value, parts=(part("action", value),), **(FIELDS | fields))


def check(event_id: str, value: float, **fields: Any) -> Any:
    return scored(
        event_id, "validation", value, parts=(part("validation", value),), **(FIELDS | fields)
    )


def correction(event_id: str, **fields: Any) -> Any:
    return scored(
        event_id, "correction", -0.5, parts=(part("correction", -0.5),), **(FIELDS | fields)
    )


def retraction(event_id: str, **fields: Any) -> Any:
    return scored(event_id, "retracted", 0.0, parts=(), **(FIELDS | fields))


def entries_of(*events: Any, **policy: Any) -> list[DatasetEntry]:
    """Handle events. Return their entries, in order."""
    world = SimulatedShard(model_file(held_out_share=0.0, **policy))
    for offset, event in enumerate(events):
        world.decide(event, offset)
    assert world.pending == sum(
        entry.is_waiting and entry.decision == "training" for entry in world.entries.values()
    )
    return list(world.entries.values())


def reasons_of(world: SimulatedShard) -> dict[str, str]:
    return {entry.feedback_id: entry.reason for entry in world.entries.values()}


def waiting_entry(*events: Any) -> DatasetEntry:
    """Return the only entry that is not dropped."""
    (entry,) = [entry for entry in entries_of(*events) if entry.is_waiting]
    return entry


def test_thumb_after_validation_adds_to_it() -> None:
    entry = waiting_entry(check("e0", 0.0), thumb("e1"))
    assert entry.example is not None
    assert (entry.feedback_id, entry.example.reward, entry.example.quality) == ("e1", 0.5, 0.75)


def test_validation_after_thumb_keeps_the_user_verdict() -> None:
    entry = waiting_entry(thumb("e0"), check("e1", 0.0))
    assert entry.example is not None
    assert (entry.word, entry.example.feedback_type, entry.example.reward) == (
        "thumbs_up",
        "thumbs_up",
        0.5,
    )


def test_validation_does_not_override_a_thumbs_down() -> None:
    assert waiting_entry(thumb("e0", up=False), check("e1", 1.0)).decision == "negative"


def test_newer_validation_replaces_older_one() -> None:
    first, second = entries_of(check("e0", 1.0), check("e1", -1.0))
    assert (first.reason, second.decision) == ("superseded", "negative")


def test_correction_replaces_thumb() -> None:
    first, second = entries_of(thumb("e0"), correction("e1"))
    assert (first.decision, first.reason, first.example, first.revoked) == (
        "dropped",
        "superseded",
        None,
        1,
    )
    assert (second.decision, second.reason) == ("training", "correction")
    assert [named.name for named in second.parts] == ["correction"]


def test_validation_after_correction_changes_nothing() -> None:
    first, second = entries_of(correction("e0"), check("e1", 1.0))
    assert (first.is_waiting, first.reason) == (True, "correction")
    assert (second.decision, second.reason) == ("dropped", "corrected")
    third = entries_of(correction("e0"), check("e1", 1.0), thumb("e2", up=False))[2]
    assert third.decision == "negative"


def test_retraction_removes_thumb_and_keeps_validation() -> None:
    assert {entry.reason for entry in entries_of(thumb("e0"), retraction("e1"))} == {
        "superseded",
        "retracted",
    }
    entry = waiting_entry(check("e0", 1.0), thumb("e1", up=False), retraction("e2"))
    assert entry.example is not None
    assert (entry.decision, entry.reason, entry.example.feedback_type) == (
        "training",
        "approved",
        "validation",
    )


def test_waiting_negatives_and_held_out_are_superseded() -> None:
    assert [entry.reason for entry in entries_of(thumb("e0", up=False), thumb("e1"))] == [
        "superseded",
        "approved",
    ]
    world = SimulatedShard(model_file(held_out_share=0.99))
    for offset, event in enumerate((thumb("e0"), correction("e1"), thumb("e2"))):
        world.decide(event, offset)
    assert [(entry.decision, entry.reason) for entry in world.entries.values()] == [
        ("dropped", "superseded"),
        ("dropped", "superseded"),
        ("held_out", "held_out"),
    ]


def test_feedback_after_the_batch_is_late() -> None:
    entries = entries_of(
        thumb("e0"),
        thumb("f", input=words("q"), output=words("b")),
        thumb("e1", up=False),
        batch_size=2,
    )
    assert [entry.reason for entry in entries] == ["approved", "approved", "late"]
    assert entries[0].batch is not None
    assert entries[2].answer_id == entries[0].answer_id


def test_a_correction_after_the_batch_enters_the_next_one() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.decide(thumb("e0"), 0)
    world.decide(thumb("f0", user_id="bob", input=words("q"), output=words("b")), 1)
    world.decide(correction("e1"), 2)
    world.restart()
    world.decide(correction("e2", corrected_output=words("w")), 3)
    world.decide(thumb("g0", user_id="eve", input=words("r"), output=words("c")), 4)
    assert world.training_members(0) == ["e0", "f0"]
    assert world.training_members(1) == ["e2", "g0"]
    [corrected, *_] = world.plans[1].members
    assert corrected.example is not None
    assert corrected.example.answer == words("w")
    assert reasons_of(world)["e1"] == "superseded"


def test_a_repeated_correction_after_the_batch_is_a_duplicate() -> None:
    world = SimulatedShard(model_file(batch_size=2, held_out_share=0.0))
    world.decide(correction("e0", corrected_output=words("w")), 0)
    world.decide(thumb("f0", user_id="bob", input=words("q"), output=words("b")), 1)
    world.decide(correction("e1", corrected_output=words("w")), 2)
    assert world.training_members(0) == ["e0", "f0"]
    assert reasons_of(world)["e1"] == "near_duplicate"


def test_superseded_are_counted_in_the_next_batch() -> None:
    """Also if the superseded record is older than the previous batch."""
    world = SimulatedShard(model_file(batch_size=2, examples_per_user=1, held_out_share=0.0))
    other: dict[str, Any] = {"user_id": "bob"}
    world.decide(thumb("a0"), 0)
    world.decide(thumb("a1", input=words("q"), output=words("b")), 1)
    world.decide(thumb("b0", **other, input=words("r"), output=words("c")), 2)
    assert world.training_members(0) == ["a0", "b0"]
    world.decide(correction("a2", input=words("q"), output=words("b")), 3)
    world.restart()
    world.decide(thumb("b1", **other, input=words("s"), output=words("d")), 4)
    assert world.training_members(1) == ["a2", "b1"]
    assert [plan.dropped for plan in world.plans] == [{}, {"superseded": 1}]
    assert [plan.deferred for plan in world.plans] == [{"limits": 1}, {}]


@pytest.mark.parametrize(
    ("first_fields", "second_fields", "same"),
    [
        ({"response_id": "r"}, {"response_id": "r", "output": "another", "user_id": "bob"}, True),
        ({"response_id": "r"}, {"response_id": "s"}, False),
        ({}, {}, True),
        ({}, {"output": "another"}, False),
        ({}, {"user_id": "bob"}, False),
        (
            {"user_id": None, "conversation_id": "c"},
            {"user_id": None, "conversation_id": "c"},
            True,
        ),
    ],
)
def test_answer_id_links_feedback_on_one_answer(
    first_fields: dict[str, Any], second_fields: dict[str, Any], same: bool
) -> None:
    first, second = (
        answer_id_of(thumb("e0", **first_fields)),
        answer_id_of(thumb("e1", **second_fields)),
    )
    assert first is not None
    assert (first == second) is same


def test_anonymous_feedback_has_no_answer_id() -> None:
    assert answer_id_of(thumb("e0", user_id=None)) is None
