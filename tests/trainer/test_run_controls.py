"""Cancelled and resumed runs, with a fake training process and an in-memory bus."""

import asyncio
from pathlib import Path

import pytest

from services.trainer.protocol import Request, Score
from services.trainer.worker.client import OnProgress, ignore_progress
from shared.errors import Misconfigured
from shared.events import RunCancelled, RunResumed, TrainingPaused, VersionPromoted
from shared.identity import run_identity
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import TRAINING_BATCHES, TRAINING_CONTROLS, TRAINING_PROGRESS
from tests.support.tickets import NOW, tickets, write_batch
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


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = await started_world(tmp_path)
    world.child.gain = -0.5
    return world


async def decide(
    world: World, kind: type[RunCancelled | RunResumed], number: int, batch: int = 0
) -> None:
    """Publish an operator's decision on the run of a batch as the registry does."""
    batch_id = a_batch(world, number=batch).batch_id
    event = kind(
        event_id=f"{kind.__name__} {batch} {number}",
        occurred_at=NOW,
        model="m",
        run_id=run_identity(batch_id),
        batch_id=batch_id,
        number=number,
        actor="ada",
        reason="wrong labels",
    )
    await world.bus.send(TRAINING_CONTROLS, b"m", *encode(event, "registry"))


async def announce(world: World, number: int = 0) -> Record:
    batch = a_batch(world, number=number)
    await world.bus.send(TRAINING_BATCHES, b"m", *encode(batch, "dataset"))
    return record_of(batch)


def runs_counted(world: World, outcome: str) -> float | None:
    labels = {"model": "m", "outcome": outcome}
    return world.metrics.registry.get_sample_value("ratchet_training_runs_total", labels)


async def cancelled_in_training(world: World) -> Record:
    """Cancel the run of batch 0 while it trains; return the record of the batch."""
    world.child.stops_at = 3
    record, trainer = await announce(world), world.trainer()
    handling = asyncio.create_task(trainer.handle(record, is_owner))
    await wait_until_training(world)
    await decide(world, RunCancelled, 1)
    async with asyncio.timeout(10):
        await handling
    world.child.stops_at = 0
    return record


async def test_run_cancelled_before_its_start_is_not_trained(world: World) -> None:
    """Neither a pause nor the end of the trainer delays that the batch is done with."""
    record = await announce(world)
    await decide(world, RunCancelled, 1)
    await world.control(TrainingPaused, 1)
    trainer = world.trainer()
    await trainer.refresh()
    assert trainer.wait_of(record) is None
    await trainer.handle(record, is_owner)
    await world.trainer().handle(record, is_owner)
    assert not world.child.trained
    assert not world.rollbacks
    assert not list(trainer.resumed_batches())
    assert runs_counted(world, "cancelled") == 2


async def test_batch_behind_a_cancelled_run_is_trained(world: World) -> None:
    """It replays the examples of the cancelled batch, and its gate has the number that it would
    have had without that batch. The resumed batch is offered again.
    """
    record = await cancelled_in_training(world)
    assert not world.rollbacks
    cancelled = a_batch(world)
    behind = write_batch(world.store, "m", 1, tickets(20, 10), tickets(500, 20), cancelled.manifest)
    trainer = world.trainer()
    await trainer.handle(record_of(behind), is_owner)
    [ended] = world.rollbacks
    assert ended.metrics is not None
    assert ended.metrics.examples_replayed > 0
    assert ended.verdict is not None
    assert ended.verdict.budget is not None
    assert ended.verdict.budget.gate == 1
    await decide(world, RunResumed, 2)
    await trainer.refresh()
    [resumed] = trainer.resumed_batches()
    assert (resumed.record.value, resumed.number) == (record.value, 2)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_resumed_run_goes_on_from_its_checkpoint(
    world: World, tmp_path: Path, elsewhere: bool
) -> None:
    record = await cancelled_in_training(world)
    before = {event.event_id for event in world.events(TRAINING_PROGRESS)}
    await decide(world, RunResumed, 2)
    other = World(tmp_path / "elsewhere", world.bus, world.store, QuickChild(-0.5))
    there = other if elsewhere else world
    await there.trainer().handle(record, is_owner)
    assert there.child.checkpoints_seen == [["checkpoint-3"]]
    assert [event.outcome for event in world.rollbacks] == ["rejected"]
    assert not [key for key in world.store.objects if key.startswith("unfinished/")]
    after = [event.event_id for event in world.events(TRAINING_PROGRESS)]
    assert len(set(after)) == len(after)
    assert before < set(after)


async def test_resumed_run_begins_again_from_a_new_champion(world: World) -> None:
    record = await cancelled_in_training(world)
    promoted = VersionPromoted(
        event_id="p", occurred_at=NOW, model="m", version="v9", actor="operator", reason="by hand"
    )
    await world.publish(promoted)
    await decide(world, RunResumed, 2)
    world.child.dies_at = Score
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer().handle(record, is_owner)
    assert world.child.checkpoints_seen == [[]]
    world.child.dies_at = None
    await world.trainer().handle(record, is_owner)
    assert len(world.child.trained) == 1, "what it has trained since is kept"
    assert [event.parent_version for event in world.rollbacks] == ["v9"]


async def test_resumed_run_leaves_out_what_was_withdrawn(world: World) -> None:
    record = await cancelled_in_training(world)
    await world.withdraw("0-training-0")
    await decide(world, RunResumed, 2)
    await world.trainer().handle(record, is_owner)
    assert world.child.checkpoints_seen == [[]]
    assert len(world.child.trained[0].examples) == 9


async def test_evaluation_is_ended_by_a_cancellation(world: World) -> None:
    """Nothing is saved: the adapter is on disk, and the resumed run is evaluated from there."""

    class SlowChild(QuickChild):
        async def request(
            self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
        ) -> R:
            if isinstance(request, Score):
                await asyncio.get_running_loop().create_future()
            return await super().request(request, expected, on_progress)

    quick, world.child = world.child, SlowChild(-0.5)
    record, trainer = await announce(world), world.trainer()
    handling = asyncio.create_task(trainer.handle(record, is_owner))
    async with asyncio.timeout(10):
        while not list(world.folder.glob("runs/*/trained.json")):
            await asyncio.sleep(0.01)
        await decide(world, RunCancelled, 1)
        await handling
    assert not world.rollbacks
    world.child = quick
    await decide(world, RunResumed, 2)
    await world.trainer().handle(record, is_owner)
    assert not quick.trained
    assert [event.outcome for event in world.rollbacks] == ["rejected"]


async def test_outcome_of_a_cancelled_run_is_not_published(world: World) -> None:
    """The cancellation comes between the outcome and its publication. The resumed run publishes the
    outcome that it has.
    """
    record = await announce(world)

    async def is_owner_and_cancels() -> bool:
        await decide(world, RunCancelled, 1)
        return True

    await world.trainer().handle(record, is_owner_and_cancels)
    assert not world.rollbacks
    await decide(world, RunResumed, 2)
    await world.trainer().handle(record, is_owner)
    assert len(world.child.trained) == len(world.rollbacks) == 1


async def test_published_checkpoint_outlives_a_cancellation(world: World) -> None:
    world.child.gain = 0.5
    handling = asyncio.create_task(world.trainer().handle(await announce(world), is_owner))
    while not world.checkpoints:
        await asyncio.sleep(0.01)
    await decide(world, RunCancelled, 1)
    await asyncio.sleep(0.7)
    assert not handling.done(), "the registry's answer is still needed"
    await world.answer(1, "held", "v0")
    await handling
    assert not runs_counted(world, "cancelled")


async def test_later_decision_counts_in_any_order(world: World) -> None:
    record = await announce(world)
    await decide(world, RunCancelled, 3)
    await decide(world, RunCancelled, 1)
    await decide(world, RunResumed, 2)
    await world.trainer().handle(record, is_owner)
    assert not world.child.trained
    await decide(world, RunResumed, 4)
    trainer = world.trainer()
    await trainer.handle(record, is_owner)
    assert len(world.rollbacks) == 1
    await trainer.refresh()
    assert not list(trainer.resumed_batches()), "it has ended"


async def test_resumed_run_waits_for_the_end_of_a_pause(world: World) -> None:
    record = await cancelled_in_training(world)
    await world.control(TrainingPaused, 1)
    await decide(world, RunResumed, 2)
    trainer = world.trainer()
    await trainer.refresh()
    assert trainer.wait_of(record) is not None


async def test_rebalance_does_not_wait_for_a_cancelled_run(world: World) -> None:
    """The operator cancels, then a rebalance asks for the checkpoint of the same training."""
    world.child.stops_at = 3
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(await announce(world), is_owner))
    await wait_until_training(world)
    await decide(world, RunCancelled, 1)
    await trainer.refresh()
    async with asyncio.timeout(5):
        await trainer.pause(60)
        await handling
    assert not world.rollbacks


async def test_unreadable_decision_stops_a_running_trainer(world: World) -> None:
    world.child.stops_at = 3
    trainer = world.trainer()
    handling = asyncio.create_task(trainer.handle(await announce(world), is_owner))
    await wait_until_training(world)
    await decide(world, RunCancelled, 1)
    unreadable = world.bus.topics[TRAINING_CONTROLS].pop()
    assert unreadable.value is not None
    value = unreadable.value.replace(b"run_id", b"ran_id")
    await world.bus.send(TRAINING_CONTROLS, b"m", value, unreadable.headers)
    with pytest.raises(Misconfigured, match="run_id"):
        await handling
    with pytest.raises(Misconfigured, match="run_id"):
        await trainer.refresh()
