"""What a batch consists of: the lines of its data files."""

from services.dataset.ledger.results import BatchPlan
from shared.events.hyperparameters import Lane
from shared.storage.snapshots import Example, ExampleKind

LANE: Lane = "adaptive"


def examples_of(plan: BatchPlan) -> dict[ExampleKind, list[Example]]:
    """The lines of each data file. A correction stands in two: what to learn, and the pair of it
    and the original.
    """
    training = examples_with_decision(plan, "training")
    return {
        "training": [example.model_copy(update={"rejected": None}) for example in training],
        "preference": [example for example in training if example.rejected is not None],
        "negative": examples_with_decision(plan, "negative"),
        "held_out": examples_with_decision(plan, "held_out"),
    }


def examples_with_decision(plan: BatchPlan, kind: ExampleKind) -> list[Example]:
    """The examples of the members that were decided to be of a kind, whole: a correction with the
    original that it rejects.
    """
    return [
        entry.example
        for entry in plan.members
        if entry.decision == kind and entry.example is not None
    ]
