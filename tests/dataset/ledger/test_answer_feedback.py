"""What an answer is worth after all that was said of it."""

from typing import Any

import pytest

from services.dataset.ledger.answer_feedback import answer_id_of
from shared.events import RewardPart
from shared.storage.dataset_entries import DatasetEntry
from tests.support.scored_feedback import SimulatedShard, model_file, scored, words

SAID: dict[str, Any] = {"input": words("p"), "output": words("a"), "user_id": "ann"}


def part(name: str, value: float) -> RewardPart:
    return RewardPart(name=name, value=value, weight=1.0)


def thumb(event_id: str, up: bool = True, **fields: Any) -> Any:
    kind, value = ("thumbs_up", 1.0) if up else ("thumbs_down", -1.0)
    return scored(event_id, kind, value, parts=(part("action", value),), **(SAID | fields))


def check(event_id: str, value: float, **fields: Any) -> Any:
    return scored(
        event_id, "validation", value, parts=(part("validation", value),), **(SAID | fields)
    )


def correction(event_id: str, **fields: Any) -> Any:
    return scored(
        event_id, "correction", -0.5, parts=(part("correction", -0.5),), **(SAID | fields)
    )


def retraction(event_id: str, **fields: Any) -> Any:
    return scored(event_id, "retracted", 0.0, parts=(), **(SAID | fields))


def said(*events: Any, **policy: Any) -> list[DatasetEntry]:
    """The entries after these events, in their order."""
    world = SimulatedShard(model_file(held_out_share=0.0, **policy))
    for offset, event in enumerate(events):
        world.decide(event, offset)
    assert world.pending == sum(
        entry.is_waiting and entry.decision == "training" for entry in world.entries.values()
    )
    return list(world.entries.values())


def standing(*events: Any) -> DatasetEntry:
    """The one entry that is not dropped."""
    (entry,) = [entry for entry in said(*events) if entry.is_waiting]
    return entry


def test_a_thumb_after_a_check_adds_to_it() -> None:
    entry = standing(check("e0", 0.0), thumb("e1"))
    assert entry.example is not None
    assert (entry.feedback_id, entry.example.reward, entry.example.quality) == ("e1", 0.5, 0.75)


def test_a_check_after_a_thumb_adds_to_it_and_the_thumb_stays_the_word_of_the_person() -> None:
    entry = standing(thumb("e0"), check("e1", 0.0))
    assert entry.example is not None
    assert (entry.word, entry.example.feedback_type, entry.example.reward) == (
        "thumbs_up",
        "thumbs_up",
        0.5,
    )


def test_a_good_check_does_not_make_an_answer_good_that_a_person_turned_down() -> None:
    assert standing(thumb("e0", up=False), check("e1", 1.0)).decision == "negative"


def test_a_newer_check_replaces_an_older_one() -> None:
    first, second = said(check("e0", 1.0), check("e1", -1.0))
    assert (first.reason, second.decision) == ("superseded", "negative")


def test_a_correction_after_a_thumb_replaces_it() -> None:
    first, second = said(thumb("e0"), correction("e1"))
    assert (first.decision, first.reason, first.example, first.revoked) == (
        "dropped",
        "superseded",
        None,
        1,
    )
    assert (second.decision, second.reason) == ("training", "correction")
    assert [named.name for named in second.parts] == ["correction"]


def test_what_a_check_says_of_an_answer_that_was_corrected_changes_nothing() -> None:
    first, second = said(correction("e0"), check("e1", 1.0))
    assert (first.is_waiting, first.reason) == (True, "correction")
    assert (second.decision, second.reason) == ("dropped", "corrected")
    third = said(correction("e0"), check("e1", 1.0), thumb("e2", up=False))[2]
    assert third.decision == "negative"


def test_a_retraction_takes_the_thumb_away_and_leaves_the_check() -> None:
    assert {entry.reason for entry in said(thumb("e0"), retraction("e1"))} == {
        "superseded",
        "retracted",
    }
    entry = standing(check("e0", 1.0), thumb("e1", up=False), retraction("e2"))
    assert entry.example is not None
    assert (entry.decision, entry.reason, entry.example.feedback_type) == (
        "training",
        "approved",
        "validation",
    )


def test_what_waited_to_be_held_out_or_as_a_negative_gives_way_as_well() -> None:
    assert [entry.reason for entry in said(thumb("e0", up=False), thumb("e1"))] == [
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


def test_once_the_answer_is_in_a_batch_later_feedback_is_only_recorded() -> None:
    entries = said(
        thumb("e0"),
        thumb("f", input=words("q"), output=words("b")),
        thumb("e1", up=False),
        correction("e2"),
        batch_size=2,
    )
    assert [entry.reason for entry in entries] == ["approved", "approved", "late", "late"]
    assert entries[0].batch is not None
    assert {entry.answer_id for entry in (entries[0], *entries[2:])} == {entries[0].answer_id}


def test_what_was_superseded_is_counted_for_the_batch_in_whose_time_that_was() -> None:
    """Also when it stood in the log before the batch before."""
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
    assert [closing.dropped for closing in world.plans] == [{}, {"superseded": 1}]
    assert [closing.deferred for closing in world.plans] == [{"limits": 1}, {}]


@pytest.mark.parametrize(
    ("one", "other", "same"),
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
def test_which_feedback_is_about_the_same_answer(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    first, second = answer_id_of(thumb("e0", **one)), answer_id_of(thumb("e1", **other))
    assert first is not None
    assert (first == second) is same


def test_anonymous_feedback_stands_for_itself() -> None:
    assert answer_id_of(thumb("e0", user_id=None)) is None
