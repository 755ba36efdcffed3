"""Examples of a batch, by data file."""

from services.dataset.ledger.results import BatchPlan
from shared.events.hyperparameters import Lane
from shared.storage.snapshots import Example, ExampleKind

LANE: Lane = "adaptive"


def examples_of(plan: BatchPlan) -> dict[ExampleKind, list[Example]]:
    """Return the examples of each data file. A correction is in two files: as a training example,
    and as a preference pair with the original answer.
    """
    training = examples_with_decision(plan, "training")
    return {
        "training": [example.model_copy(update={"rejected": None}) for example in training],
        "preference": [example for example in training if example.rejected is not None],
        "negative": examples_with_decision(plan, "negative"),
        "held_out": examples_with_decision(plan, "held_out"),
    }


def examples_with_decision(plan: BatchPlan, kind: ExampleKind) -> list[Example]:
    """Return the examples of the members with a decision. A correction includes the original
    answer that it rejects.
    """
    return [
        entry.example
        for entry in plan.members
        if entry.decision == kind and entry.example is not None
    ]
