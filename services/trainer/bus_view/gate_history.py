"""Past gates of each model, the state of the online control of promotions."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from services.trainer.gate.budget import GateHistory
from services.trainer.gate.promotion_level import PastGate
from shared.events import CheckpointSaved, Event, TrainingRolledBack


@dataclass(frozen=True)
class _Gate:
    evaluation: int
    occurred_at: datetime
    number: int
    gate: PastGate


class GateHistories:
    """The gates of each model, whichever shard, lane or hand started the run: a fold over events in
    any order, repeats included. The newest evaluation of a run counts; a run that failed before the
    gate does not.
    """

    def __init__(self) -> None:
        self._gates: defaultdict[str, dict[str, _Gate]] = defaultdict(dict)

    def apply(self, event: Event) -> None:
        if not isinstance(event, CheckpointSaved | TrainingRolledBack) or event.verdict is None:
            return
        gates, verdict = self._gates[event.model], event.verdict
        previous = gates.get(event.run_id)
        if previous is None or previous.evaluation <= event.evaluation:
            budget = verdict.budget
            gate = PastGate(
                isinstance(event, CheckpointSaved),
                verdict.p_value,
                budget.golden_digest if budget else None,
            )
            number = budget.gate if budget else 1
            gates[event.run_id] = _Gate(event.evaluation, event.occurred_at, number, gate)

    def before(self, model: str, run_id: str) -> GateHistory:
        """Return the gates of a model's other runs.

        The topics forget old outcomes. Gates before the oldest one left count in full.
        """
        others = [(row, run) for run, row in self._gates[model].items() if run != run_id]
        rows = [row for row, _ in sorted(others, key=lambda pair: (pair[0].occurred_at, pair[1]))]
        forgotten = rows[0].number - 1 if rows else 0
        return GateHistory([*[PastGate(False)] * forgotten, *(row.gate for row in rows)])
