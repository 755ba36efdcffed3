"""What a batch consists of: the lines of its data files."""

from services.dataset.ledger.results import Closing
from shared.events.hyperparameters import Lane
from shared.storage.snapshots import Example, Kind

LANE: Lane = "adaptive"


def examples_of(closing: Closing) -> dict[Kind, list[Example]]:
    """The lines of each data file. A correction stands in two: what to learn, and the pair of it
    and the original.
    """
    training = with_content(closing, "training")
    return {
        "training": [example.model_copy(update={"rejected": None}) for example in training],
        "preference": [example for example in training if example.rejected is not None],
        "negative": with_content(closing, "negative"),
        "held_out": with_content(closing, "held_out"),
    }


def with_content(closing: Closing, kind: Kind) -> list[Example]:
    """The examples of the members that were decided to be of a kind, whole: a correction with the
    original that it rejects.
    """
    return [
        entry.example
        for entry in closing.members
        if entry.decision == kind and entry.example is not None
    ]
