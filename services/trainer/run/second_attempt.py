"""Second attempt of a run whose first candidate only forgot too much.

It is at an eighth of the learning rate: `python -m benchmarks.gate.second_attempts` compares it
with other settings.
"""

from dataclasses import replace

from services.trainer.run.outcome import RunFacts
from services.trainer.run_folder import RetryPlan
from shared.config.training import LANE_RANGES, TrainingConfig
from shared.events import Verdict

RATE_FACTOR = 1 / 8
"""Learning rate of the second attempt, as a share of the first one's."""


def gentler(configuration: TrainingConfig) -> TrainingConfig:
    """Return the configuration of a second attempt. Its rate stays in the range of the lane."""
    lowest = LANE_RANGES[configuration.lane]["learning_rate"].minimum
    rate = max(lowest, RATE_FACTOR * configuration.learning_rate)
    return configuration.model_copy(update={"learning_rate": rate})


def facts_of_attempt(facts: RunFacts, retry: RetryPlan | None) -> RunFacts:
    """Return the facts of the attempt that `retry` orders; those of the first one for None."""
    if retry is None:
        return facts
    return replace(facts, configuration=gentler(facts.configuration))


def plan_retry(facts: RunFacts, verdict: Verdict) -> RetryPlan | None:
    """Return the plan of a second attempt after the verdict on the first one; None if its training
    would be the same again.
    """
    rate = gentler(facts.configuration).learning_rate
    if rate == facts.configuration.learning_rate:
        return None
    return RetryPlan(
        reason=f"second attempt, at learning rate {rate:g} instead of "
        f"{facts.configuration.learning_rate:g}: the first one failed only the regression checks "
        f"({verdict.reasons[0]})"
    )
