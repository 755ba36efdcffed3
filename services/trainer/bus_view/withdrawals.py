"""Read model of withdrawals: examples that are excluded from training and evaluation."""

from collections import defaultdict
from dataclasses import dataclass

from shared.events import ExamplesWithdrawn, Id, Position


@dataclass(frozen=True)
class WithdrawnExamples:
    """Withdrawn feedback ids, read up to the position `through`; None if there are none."""

    feedback_ids: frozenset[Id] = frozenset()
    through: Position | None = None


class Withdrawals:
    """Union of the withdrawal events. A repeat or another order changes only the position."""

    def __init__(self) -> None:
        self._feedback_ids: defaultdict[str, set[Id]] = defaultdict(set)
        self._through: dict[str, Position] = {}

    def apply(self, event: ExamplesWithdrawn, at: Position) -> None:
        """Add an event, read at position `at`. All events of a model are in one partition, in
        order.
        """
        self._feedback_ids[event.model].update(
            feedback_id for batch in event.batches for feedback_id in batch.feedback_ids
        )
        self._through[event.model] = at

    def for_model(self, model: str) -> WithdrawnExamples:
        """Return the examples of a model that are withdrawn now."""
        return WithdrawnExamples(frozenset(self._feedback_ids[model]), self._through.get(model))
