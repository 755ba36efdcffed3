"""What the dataset service has said of withdrawals: which examples of a model nothing may be
learned from, or judged by.
"""

from collections import defaultdict
from dataclasses import dataclass

from shared.events import ExamplesWithdrawn, Id, Position


@dataclass(frozen=True)
class WithdrawnExamples:
    """The feedback ids that were withdrawn, as far as `through`; None where nothing was."""

    feedback_ids: frozenset[Id] = frozenset()
    through: Position | None = None


class Withdrawals:
    """A sum over events: the same one again, or in another order, changes nothing but the place up
    to which they were heard.
    """

    def __init__(self) -> None:
        self._feedback_ids: defaultdict[str, set[Id]] = defaultdict(set)
        self._through: dict[str, Position] = {}

    def apply(self, event: ExamplesWithdrawn, at: Position) -> None:
        """`at` is where the event stands. All of one model stand in one partition, in order."""
        self._feedback_ids[event.model].update(
            name for batch in event.batches for name in batch.feedback_ids
        )
        self._through[event.model] = at

    def for_model(self, model: str) -> WithdrawnExamples:
        """Those of a model as of now."""
        return WithdrawnExamples(frozenset(self._feedback_ids[model]), self._through.get(model))
