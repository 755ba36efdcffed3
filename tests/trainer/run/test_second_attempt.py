"""The setting of a second attempt."""

from pathlib import Path

import pytest

from services.trainer.machine.bases import LocalBase
from services.trainer.run.outcome import RunFacts
from services.trainer.run.second_attempt import RATE_FACTOR, facts_of_attempt, gentler, plan_retry
from shared.config.model_file import BasePaths, ModelFile
from shared.config.training import LANE_RANGES, TrainingConfig
from shared.events.hyperparameters import Lane
from shared.storage.object_store import MemoryStore
from tests.support.tickets import DIGEST, write_batch
from tests.trainer.histories import verdict


def facts(**training: object) -> RunFacts:
    return RunFacts(
        "r",
        write_batch(MemoryStore(), "m", 0, [], []),
        ModelFile(model="m", base=BasePaths(training="base", serving="base/model.gguf")),
        TrainingConfig.model_validate(training),
        LocalBase(Path(), "base", DIGEST),
    )


def test_only_the_learning_rate_is_gentler() -> None:
    first = TrainingConfig(learning_rate=2e-3)
    assert gentler(first) == first.model_copy(update={"learning_rate": RATE_FACTOR * 2e-3})


@pytest.mark.parametrize("lane", ["adaptive", "master"])
def test_rate_of_a_second_attempt_stays_in_the_lanes_range(lane: Lane) -> None:
    lowest = LANE_RANGES[lane]["learning_rate"].minimum
    near = facts(lane=lane, learning_rate=1.5 * lowest)
    retry = plan_retry(near, verdict("reject"))
    assert facts_of_attempt(near, retry).configuration.learning_rate == lowest
    assert plan_retry(facts(lane=lane, learning_rate=lowest), verdict("reject")) is None


def test_reason_names_both_rates_and_the_finding() -> None:
    retry = plan_retry(facts(learning_rate=2e-3), verdict("reject"))
    assert retry is not None
    assert retry.reason == (
        f"second attempt, at learning rate {RATE_FACTOR * 2e-3:g} instead of 0.002: the first one "
        "failed only the regression checks (because)"
    )
    assert facts_of_attempt(facts(), None) == facts()
