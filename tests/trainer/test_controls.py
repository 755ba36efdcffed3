"""Operators' control of training, on a real broker with a real training process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.events import TrainingPaused, TrainingResumed
from shared.messaging.topics import TRAINING_CONTROLS
from tests.support.exported_metrics import sample
from tests.support.tickets import NOW
from tests.trainer.fleet import Fleet, make_base

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.fixture
async def fleet(broker: str, bases: Path, tmp_path: Path) -> AsyncIterator[Fleet]:
    make_base(bases / "smollm2-135m-instruct", tmp_path / "bases" / "tiny")
    fleet = Fleet(broker, tmp_path / "bases" / "tiny", tmp_path / "fleet", "controls")
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
