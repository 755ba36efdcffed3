"""Which objectives a batch gets, and from which of its examples."""

import pytest

from services.trainer.data.objective_data import ObjectiveData, assign_objectives
from services.trainer.data.training_set import PreferencePair, TrainingSet
from shared.config.training import TrainingConfig
from tests.trainer.tickets import ticket, tickets

CONFIG = TrainingConfig(dpo_pairs=3, kto_negatives=2)


def chosen(pairs: int, negatives: int) -> TrainingSet:
    return TrainingSet(
        new=tickets(0, 6),
        replayed=tickets(10, 2),
        held_out=tickets(20, 2),
        pairs=[
            PreferencePair(messages=sample.messages, answer=sample.answer, rejected="?")
            for sample in tickets(0, pairs)
        ],
        negatives=tickets(30, negatives),
        liked=tickets(0, 1),
    )


@pytest.mark.parametrize(
    ("pairs", "negatives", "objectives"),
    [
        (2, 1, ("supervised",)),
        (3, 1, ("supervised", "dpo")),
        (2, 2, ("supervised", "kto")),
        (9, 9, ("supervised", "dpo", "kto")),
    ],
)
def test_an_objective_is_taken_from_so_many_on(
    pairs: int, negatives: int, objectives: tuple[str, ...]
) -> None:
    given = chosen(pairs, negatives)
    lessons = assign_objectives(given, [ticket(99)], CONFIG)
    assert lessons.objectives == objectives
    assert lessons.examples == [*given.new, *given.replayed, ticket(99)], "always"
    assert list(lessons.pairs) == (given.pairs if "dpo" in objectives else [])
    assert list(lessons.undesirable) == (given.negatives if "kto" in objectives else [])
    assert list(lessons.desirable) == (given.liked if "kto" in objectives else []), (
        "liked answers are the other side of disliked ones"
    )


def test_examples_alone_are_learned_as_they_stand() -> None:
    assert ObjectiveData(tickets(0, 1)).objectives == ("supervised",)


def test_a_master_run_is_fresh_unless_told_otherwise() -> None:
    assert TrainingConfig().lineage == "continue"
    assert TrainingConfig(lineage="fresh").lineage == "fresh"
    assert TrainingConfig(lane="master").lineage == "fresh"
    assert TrainingConfig(lane="master", lineage="continue").lineage == "continue"
