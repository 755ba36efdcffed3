"""A run whose candidate only forgets is trained once more, and its batch is not quarantined."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.trainer.errors import RunFailed
from services.trainer.protocol import Load, Request, Train
from services.trainer.worker.client import OnProgress, ignore_progress
from shared.config.gate import GateSettings
from shared.config.model_file import BasePaths, LaneSettings, ModelFile
from shared.events import BatchReady, CheckpointSaved, TrainingProgressed, TrainingRolledBack
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_PROGRESS
from tests.support.tickets import tickets, write_batch
from tests.trainer.test_app import (
    QuickChild,
    R,
    World,
    a_batch,
    is_owner,
    record_of,
    started_world,
    wait_until_training,
)

RATE = 1e-3
REASON = (
    "second attempt, at learning rate 0.000125 instead of 0.001: the first one failed only the "
    "regression checks (regression prompts: number 1 passed with v0 and fail with the candidate)"
)


class FragileChild(QuickChild):
    """Loses its power at request number `dies_at_request`, once. With `fails_second_training` it
    refuses the second training.
    """

    def __init__(self, dies_at_request: int = 0) -> None:
        super().__init__(0.5)
        self.requests: list[Request] = []
        self.dies_at_request = dies_at_request
        self.fails_second_training = False

    async def request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        if not isinstance(request, Load):
            self.requests.append(request)
            if len(self.requests) == self.dies_at_request:
                raise RuntimeError("power")
        if isinstance(request, Train) and self.trained and self.fails_second_training:
            raise RunFailed("diverged")
        return await super().request(request, expected, on_progress)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await started_world(tmp_path)


def with_a_prompt(folder: Path) -> ModelFile:
    """Declare a regression prompt, which a child that has forgotten fails."""
    row = {
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "must_not_contain": ["forgotten"],
    }
    folder.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text(json.dumps(row))
    return ModelFile(
        model="m",
        base=BasePaths(training="base", serving="base/model.gguf"),
        lanes={"adaptive": LaneSettings(rehearsal="none")},
        gate=GateSettings(regression_prompts="prompts.jsonl"),
    )


async def handle(world: World, batch: BatchReady) -> None:
    """Handle a batch, and promote its version if it makes one."""
    trainer = world.trainer(with_a_prompt(world.folder))
    handling = asyncio.create_task(trainer.handle(record_of(batch), is_owner))
    while not handling.done() and not world.checkpoints:
        await asyncio.sleep(0.01)
    if world.checkpoints:
        await world.answer(1, "promoted", "v1")
    await handling


def rates(world: World) -> Sequence[float]:
    return [request.configuration.learning_rate for request in world.child.trained]


async def test_gentler_candidate_is_promoted(world: World) -> None:
    world.child.forgets_above = RATE / 2
    await handle(world, a_batch(world))
    (outcome,) = world.checkpoints
    assert rates(world) == [RATE, RATE / 8]
    assert outcome.configuration.learning_rate == RATE / 8
    assert (outcome.verdict.attempt, outcome.verdict.retried_because) == (2, REASON)
    assert outcome.verdict.reasons[-1] == REASON
    assert not world.rollbacks
    assert REASON in world.card
    assert "| learning_rate | 0.000125 |" in world.card
    attempts = ("ratchet_training_second_attempts_total", {"model": "m"})
    assert world.metrics.registry.get_sample_value(*attempts) == 1
    progress = [
        decode(record.value, record.headers, TrainingProgressed).event.event_id
        for record in world.bus.topics[TRAINING_PROGRESS]
    ]
    assert len(set(progress)) == len(progress)


async def test_batch_that_fails_twice_is_replayed_later(world: World) -> None:
    """Its run ends rejected; the next run trains on its examples and evaluates on its held-out
    ones.
    """
    world.child.forgets_above = 0.0
    batch = a_batch(world)
    await handle(world, batch)
    (outcome,) = world.rollbacks
    assert rates(world) == [RATE, RATE / 8]
    assert outcome.verdict is not None
    assert (outcome.outcome, outcome.verdict.attempt) == ("rejected", 2)
    assert not outcome.verdict.quarantines_batch
    assert outcome.advice.startswith("the batch is not quarantined")

    world.child.forgets_above = 1.0
    later = write_batch(
        world.store, "m", 1, tickets(20, 10), tickets(600, 20), previous=batch.manifest
    )
    await handle(world, later)
    learned = {sample.messages for sample in world.child.trained[-1].examples}
    scored = {sample.messages for request in world.child.scored for sample in request.samples}
    assert learned == {sample.messages for sample in (*tickets(0, 10), *tickets(20, 10))}
    assert scored >= {sample.messages for sample in tickets(500, 20)}


@pytest.mark.parametrize("forgets_above", [0.0, RATE / 2], ids=["rejected", "promoted"])
async def test_crash_at_any_request_changes_nothing(tmp_path: Path, forgets_above: float) -> None:
    """The trainer is lost at each request in turn, in either attempt, and restarts on its disk: it
    makes two attempts, trains each once, and publishes the outcome of an undisturbed run.
    """
    undisturbed, requests = await outcome_with_a_crash(tmp_path / "0", forgets_above, 0)
    assert requests > 10
    for number in range(1, requests + 1):
        outcome, _ = await outcome_with_a_crash(tmp_path / str(number), forgets_above, number)
        assert outcome == undisturbed


async def outcome_with_a_crash(
    folder: Path, forgets_above: float, number: int
) -> tuple[object, int]:
    """Return the only outcome of a run that dies at request `number`, without times, and the
    number of its requests.
    """
    world = await started_world(folder)
    world.child = child = FragileChild(dies_at_request=number)
    child.forgets_above = forgets_above
    batch = a_batch(world)
    if number:
        with pytest.raises(RuntimeError, match="power"):
            await handle(world, batch)
    await handle(world, batch)
    assert rates(world) == [RATE, RATE / 8]
    outcomes: list[CheckpointSaved | TrainingRolledBack] = [*world.checkpoints, *world.rollbacks]
    (outcome,) = outcomes
    essence = outcome.model_dump(exclude={"occurred_at": True, "metrics": {"evaluate_seconds"}})
    return essence, len(child.requests)


class StoppableChild(QuickChild):
    """Trains once, and is stopped in its second training."""

    async def request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        self.stops_at = 3 if self.trained else 0
        return await super().request(request, expected, on_progress)


async def test_second_attempt_resumes_on_another_worker(world: World, tmp_path: Path) -> None:
    """The next worker has an empty disk: it repeats neither the first attempt nor its evaluation.
    The adapter of the first attempt was not uploaded.
    """
    world.child = StoppableChild(0.5)
    world.child.forgets_above = RATE / 2
    batch, trainer = a_batch(world), world.trainer(with_a_prompt(world.folder))
    handling = asyncio.create_task(trainer.handle(record_of(batch), is_owner))
    await wait_until_training(world)
    await trainer.pause(5)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert not any(key.startswith("adapters/") for key in world.store.objects)
    elsewhere = World(tmp_path / "elsewhere", world.bus, world.store, QuickChild(0.5))
    elsewhere.child.forgets_above = RATE / 2
    await handle(elsewhere, batch)
    assert elsewhere.child.checkpoints_seen == [["checkpoint-3"]]
    assert rates(elsewhere) == [RATE / 8]
    assert world.checkpoints[0].verdict.attempt == 2
    assert not [key for key in world.store.objects if key.startswith("unfinished/")]
    assert not list(elsewhere.folder.rglob("checkpoint-*"))


async def test_failure_of_a_second_attempt_names_both(world: World) -> None:
    world.child = FragileChild()
    world.child.forgets_above = 0.0
    world.child.fails_second_training = True
    await handle(world, a_batch(world))
    (outcome,) = world.rollbacks
    assert (outcome.outcome, outcome.reason) == ("failed", f"{REASON}; then: diverged")
    assert outcome.configuration.learning_rate == RATE / 8


async def test_lowest_rate_of_the_lane_is_not_retried(world: World) -> None:
    """The same training would be repeated."""
    world.child.forgets_above = 0.0
    batch = a_batch(world).model_copy(update={"hyperparameters": {"learning_rate": 1e-5}})
    await handle(world, batch)
    (outcome,) = world.rollbacks
    assert (rates(world), outcome.outcome) == ([1e-5], "rejected")
    assert outcome.verdict is not None
    assert (outcome.verdict.attempt, outcome.verdict.quarantines_batch) == (1, False)
