"""History of evaluated candidates per model, the input of the reward-hacking alarm."""

from collections import defaultdict
from datetime import datetime

from services.trainer.gate.reward_hacking import CandidateStep, candidate_step
from shared.events import CheckpointSaved, Event, TrainingRolledBack, VersionPromoted

OPERATOR = "operator"


class RewardHistory:
    """Evaluated candidates of each model: a fold over events in any order, repeats included."""

    def __init__(self) -> None:
        self._steps: defaultdict[str, dict[str, tuple[int, datetime, CandidateStep]]] = defaultdict(
            dict
        )
        self._restarted_at: dict[str, datetime] = {}

    def apply(self, event: Event) -> None:
        match event:
            case CheckpointSaved() | TrainingRolledBack():
                reward = event.metrics.mean_reward if event.metrics else None
                step = candidate_step(reward, event.verdict)
                steps = self._steps[event.model]
                previous = steps.get(event.run_id)
                if step and (previous is None or previous[0] <= event.evaluation):
                    steps[event.run_id] = (event.evaluation, event.occurred_at, step)
            case VersionPromoted() if event.actor == OPERATOR:
                self._restarted_at[event.model] = max(
                    event.occurred_at, self._restarted_at.get(event.model, event.occurred_at)
                )
            case _:
                pass

    def steps_before(self, model: str, run_id: str) -> list[CandidateStep]:
        """Return the steps of a model's other runs by time, since an operator last promoted a
        version by hand.
        """
        restarted_at = self._restarted_at.get(model)
        other_runs = [step for run, step in self._steps[model].items() if run != run_id]
        return [
            step
            for _, occurred_at, step in sorted(other_runs, key=lambda row: row[1])
            if restarted_at is None or occurred_at > restarted_at
        ]
