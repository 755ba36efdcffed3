"""Progress of a run: its events, its metrics, and its effect on liveness."""

from datetime import UTC, datetime

import pytest
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
from tests.support.runtime import runtime_of
from tests.support.tickets import write_batch


class ObservedRun:
    """A run with its clock, metrics, bus and health."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.bus = (
            ManualClock(datetime(2026, 1, 1, tzinfo=UTC)),
            Metrics("trainer"),
            MemoryBus(),
        )
        self.health = Health(self.clock, stalled_after=10)
        self.health.mark_ready()
        batch = write_batch(MemoryStore(), "m", 0, [], [])
        runtime = runtime_of("trainer", self.clock, self.metrics, self.health)
        self.progress = ProgressReporter(batch, "r", self.bus, runtime, runtime.log)

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

    def events(self) -> list[TrainingProgressed]:
        return [
            decode(record.value, record.headers, TrainingProgressed).event
            for record in self.bus.topics[TRAINING_PROGRESS]
        ]


@pytest.fixture
async def run() -> ObservedRun:
    observed = ObservedRun()
    await observed.progress.enter_phase("training")
    return observed


async def test_step_event_has_all_numbers(run: ObservedRun) -> None:
    await run.step(1)
    event = run.events()[-1]
    assert (event.phase, event.step, event.total_steps) == ("training", 1, 9)
    assert (
        event.loss,
        event.learning_rate,
        event.gradient_norm,
        event.tokens_per_second,
        event.seconds_left,
    ) == (1.0, 0.1, 0.2, 300.0, 4.0)


async def test_metrics_count_steps_and_show_the_newest(run: ObservedRun) -> None:
    for step in (1, 2, 3):
        await run.step(step, loss=1 / step)
    assert run.measured("ratchet_training_steps_total") == 3
    assert run.measured("ratchet_training_loss") == 1 / 3
    assert run.measured("ratchet_training_gradient_norm") == 0.2
    assert run.measured("ratchet_training_tokens_per_second") == 300


async def test_only_resuming_from_a_checkpoint_is_counted(
    run: ObservedRun,
) -> None:
    """Steps 1 to 3, again from 1 after a crash without a checkpoint, then from 3 after a crash with
    one: one resumption.
    """
    for step in (1, 2, 3, 1, 2, 3, 4, 3, 4):
        await run.step(step)
    assert run.measured("ratchet_training_resumed_total") == 1


async def test_run_is_live_only_while_steps_arrive(
    run: ObservedRun,
) -> None:
    with run.progress:
        run.clock.advance(11)
        assert not run.health.is_live, "no progress was ever reported"
        for step in range(1, 9):
            await run.step(step)
            run.clock.advance(9)
            assert run.health.is_live
        run.clock.advance(2)
        assert not run.health.is_live
    run.clock.advance(100)
    assert run.health.is_live, "no phase is active"
