"""History of evaluated candidates per model, the input of the reward-hacking alarm."""

from collections import defaultdict
from datetime import datetime

from services.trainer.gate.reward_hacking import CandidateStep, candidate_step
from shared.events import CheckpointSaved, Event, TrainingRolledBack, VersionPromoted

OPERATOR = "operator"


class RewardHistory:
    """What is on record of a model's candidates: a fold that events may reach in any order, and
    more than once.
    """

    def __init__(self) -> None:
        self._steps: defaultdict[str, dict[str, tuple[int, datetime, CandidateStep]]] = defaultdict(
            dict
        )
        self._anew: dict[str, datetime] = {}

    def apply(self, event: Event) -> None:
        match event:
            case CheckpointSaved() | TrainingRolledBack():
                step = candidate_step(
                    event.metrics.mean_reward if event.metrics else None, event.verdict
                )
                known = self._steps[event.model].get(event.run_id)
                if step and (known is None or known[0] <= event.evaluation):
                    self._steps[event.model][event.run_id] = (
                        event.evaluation,
                        event.occurred_at,
                        step,
                    )
            case VersionPromoted() if event.actor == OPERATOR:
                self._anew[event.model] = max(
                    event.occurred_at, self._anew.get(event.model, event.occurred_at)
                )
            case _:
                pass

    def steps_before(self, model: str, run_id: str) -> list[CandidateStep]:
        """The steps of a model's other runs in the order of time, since an operator last promoted
        by hand.
        """
        anew = self._anew.get(model)
        others = [found for name, found in self._steps[model].items() if name != run_id]
        return [
            step
            for _, at, step in sorted(others, key=lambda found: found[1])
            if anew is None or at > anew
        ]
