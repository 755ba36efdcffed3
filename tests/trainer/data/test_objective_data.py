"""Objectives of a batch, and the examples assigned to them."""

import pytest

from services.trainer.data.objective_data import ObjectiveData, assign_objectives
from services.trainer.data.training_set import PreferencePair, TrainingSet
from shared.config.training import TrainingConfig
from tests.support.tickets import ticket, tickets

CONFIG = TrainingConfig(dpo_pairs=3, kto_negatives=2)


def training_set(pairs: int, negatives: int) -> TrainingSet:
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
def test_objectives_depend_on_the_number_of_examples(
    pairs: int, negatives: int, objectives: tuple[str, ...]
) -> None:
    selected = training_set(pairs, negatives)
    data = assign_objectives(selected, [ticket(99)], CONFIG)
    assert data.objectives == objectives
    assert data.examples == [*selected.new, *selected.replayed, ticket(99)], "in every case"
    assert data.rehearsed == 1
    assert list(data.pairs) == (selected.pairs if "dpo" in objectives else [])
    assert list(data.undesirable) == (selected.negatives if "kto" in objectives else [])
    assert list(data.desirable) == (selected.liked if "kto" in objectives else []), (
        "liked answers are the counterpart of disliked ones"
    )


def test_examples_alone_use_the_supervised_objective() -> None:
    assert ObjectiveData(tickets(0, 1)).objectives == ("supervised",)


def test_master_lane_starts_fresh_by_default() -> None:
    assert TrainingConfig().lineage == "continue"
    assert TrainingConfig(lineage="fresh").lineage == "fresh"
    assert TrainingConfig(lane="master").lineage == "fresh"
    assert TrainingConfig(lane="master", lineage="continue").lineage == "continue"
