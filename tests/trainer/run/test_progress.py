"""What is told of a run, measured of it, and taken for a sign of life."""

from datetime import UTC, datetime

import pytest
import structlog
from prometheus_client import generate_latest

from services.trainer.protocol import Stepped
from services.trainer.run.progress import ProgressReporter
from shared.clock import ManualClock
from shared.events import TrainingProgressed
from shared.messaging.bus import MemoryBus
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_PROGRESS
from shared.observability.health import Health
from shared.observability.metrics import Metrics
from shared.storage.object_store import MemoryStore
from tests.trainer.tickets import write_batch


class Watched:
    """A run of which everything can be seen."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.bus = (
            ManualClock(datetime(2026, 1, 1, tzinfo=UTC)),
            Metrics("trainer"),
            MemoryBus(),
        )
        self.health = Health(self.clock, stalled_after=10)
        self.health.mark_ready()
        batch = write_batch(MemoryStore(), "m", 0, [], [])
        log = structlog.stdlib.get_logger()
        self.progress = ProgressReporter(
            batch, "r", self.bus, self.clock, self.metrics, self.health, log
        )

    async def step(self, step: int, loss: float = 1.0) -> None:
        numbers = {
            "loss": loss,
            "learning_rate": 0.1,
            "gradient_norm": 0.2,
            "tokens_per_second": 300.0,
            "seconds_left": 4.0,
        }
        await self.progress.on_progress(
            Stepped.model_validate({"step": step, "total_steps": 9, **numbers})
        )

    def measured(self, name: str) -> float:
        (line,) = [
            line
            for line in generate_latest(self.metrics.registry).decode().splitlines()
            if line.startswith(f"{name}{{")
        ]
        return float(line.rsplit(" ", 1)[1])

    def told(self) -> list[TrainingProgressed]:
        return [
            decode(record.value, record.headers, TrainingProgressed).event
            for record in self.bus.topics[TRAINING_PROGRESS]
        ]


@pytest.fixture
async def run() -> Watched:
    watched = Watched()
    await watched.progress.enter_phase("training")
    return watched


async def test_a_step_is_told_with_all_its_numbers(run: Watched) -> None:
    await run.step(1)
    told = run.told()[-1]
    assert (told.phase, told.step, told.total_steps) == ("training", 1, 9)
    assert (
        told.loss,
        told.learning_rate,
        told.gradient_norm,
        told.tokens_per_second,
        told.seconds_left,
    ) == (1.0, 0.1, 0.2, 300.0, 4.0)


async def test_steps_are_counted_and_the_newest_is_measured(run: Watched) -> None:
    for step in (1, 2, 3):
        await run.step(step, loss=1 / step)
    assert run.measured("ratchet_training_steps_total") == 3
    assert run.measured("ratchet_training_loss") == 1 / 3
    assert run.measured("ratchet_training_gradient_norm") == 0.2
    assert run.measured("ratchet_training_tokens_per_second") == 300


async def test_going_on_from_a_checkpoint_is_counted_and_beginning_anew_is_not(
    run: Watched,
) -> None:
    """Steps 1 to 3, again from 1 after a death without a checkpoint, on from 3 after a death with
    one: one resumption.
    """
    for step in (1, 2, 3, 1, 2, 3, 4, 3, 4):
        await run.step(step)
    assert run.measured("ratchet_training_resumed_total") == 1


async def test_a_long_run_is_live_while_steps_come_and_a_silent_one_is_not_from_its_first_moment_on(
    run: Watched,
) -> None:
    run.clock.advance(11)
    assert not run.health.is_live, "it has never said anything"
    for step in range(1, 9):
        await run.step(step)
        run.clock.advance(9)
        assert run.health.is_live
    run.clock.advance(2)
    assert not run.health.is_live
    run.progress.leave_phase()
    run.clock.advance(100)
    assert run.health.is_live, "nothing is in hand"
