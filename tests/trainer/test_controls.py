"""Operators' control of training, on a real broker with a real training process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.events import (
    BatchReady,
    RunCancelled,
    RunResumed,
    TrainingPaused,
    TrainingResumed,
    TrainingRolledBack,
)
from shared.identity import run_identity
from shared.messaging.topics import TRAINING_CONTROLS
from tests.support.exported_metrics import sample
from tests.support.tickets import NOW
from tests.trainer.fleet import STALLED_STEP, Fleet, make_base

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.fixture
async def fleet(broker: str, bases: Path, tmp_path: Path) -> AsyncIterator[Fleet]:
    make_base(bases / "smollm2-135m-instruct", tmp_path / "bases" / "tiny")
    model = f"controls-{tmp_path.name}"[:60].rstrip("_")
    fleet = Fleet(broker, tmp_path / "bases" / "tiny", tmp_path / "fleet", model)
    await fleet.register_base()
    try:
        yield fleet
    finally:
        fleet.close()


async def decide(fleet: Fleet, kind: type[TrainingPaused | TrainingResumed], number: int) -> None:
    event = kind(
        event_id=f"{kind.__name__} {number}",
        occurred_at=NOW,
        model=fleet.model,
        number=number,
        actor="ada",
        reason="labels",
    )
    await fleet.publish(TRAINING_CONTROLS, event)


async def decide_run(
    fleet: Fleet, kind: type[RunCancelled | RunResumed], number: int, batch: BatchReady
) -> None:
    event = kind(
        event_id=f"{kind.__name__} {batch.batch_id} {number}",
        occurred_at=NOW,
        model=fleet.model,
        run_id=run_identity(batch.batch_id),
        batch_id=batch.batch_id,
        number=number,
        actor="ada",
        reason="labels",
    )
    await fleet.publish(TRAINING_CONTROLS, event)


async def test_batch_of_a_paused_model_is_trained_after_it(fleet: Fleet) -> None:
    """The batch waits while training is paused, also through a restart."""
    await decide(fleet, TrainingPaused, 1)
    first = await fleet.start()
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_logged(first, "training paused by ada: labels")
    first.kill()
    second = await fleet.start()
    await fleet.wait_until_logged(second, "training paused by ada: labels")
    assert sample(second.metrics, "ratchet_training_batches_waiting") == 1
    assert await fleet.outcomes(batch) == []
    await decide(fleet, TrainingResumed, 2)
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert "run started" not in first.log


async def test_cancelled_run_is_resumed_with_the_same_weights(fleet: Fleet) -> None:
    """It is cancelled after a third of its steps, and the trainer is killed. The batch behind it
    has the same examples: its run is what the cancelled one would have been.
    """
    first = await fleet.start("trainer.child_saving=stall:4", work="disk")
    cancelled = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    await decide_run(fleet, RunCancelled, 1, cancelled)
    await fleet.wait_until_logged(first, "run cancelled")
    first.kill()
    assert fleet.unfinished_files(), "its checkpoint"
    behind = await fleet.announce(fleet.batch())
    second = await fleet.start(work="disk")
    undisturbed = await fleet.wait_for_outcome(behind)
    assert await fleet.outcomes(cancelled) == []
    await decide_run(fleet, RunResumed, 2, cancelled)
    async with asyncio.timeout(120):
        while not (outcomes := await fleet.outcomes(cancelled)):
            await asyncio.sleep(0.2)
    assert "training resumed from a checkpoint" in second.log
    digests = []
    for outcome in (undisturbed, *outcomes):
        assert isinstance(outcome, TrainingRolledBack)
        assert outcome.outcome == "inconclusive", "it changes nothing for the other run"
        assert outcome.adapter is not None
        digests.append(outcome.adapter.digest)
    assert digests == [digests[0]] * 2
