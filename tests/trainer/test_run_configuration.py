"""Configuration of a run: chosen for base and device once, and kept however often it is resumed."""

import asyncio
import json
from pathlib import Path

import pytest

from services.trainer.protocol import Train
from shared.config.model_file import ModelFile
from shared.config.training import TrainingConfig
from shared.events import BatchReady, CheckpointSaved, VersionPromoted
from shared.events.hyperparameters import Lane
from shared.messaging.bus import Record
from tests.support.tickets import NOW, tickets, write_batch
from tests.trainer.test_app import World, is_owner, record_of, started_world
from tests.trainer.tiny import save_tiny


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """The base has two layers of seven projections, and a thousand parameters."""
    save_tiny(tmp_path)
    return await started_world(tmp_path)


def batch_of(world: World) -> Record:
    return record_of(write_batch(world.store, "m", 0, tickets(0, 10), tickets(500, 12)))


def file(**training: object) -> ModelFile:
    base = {"training": "base", "serving": "base.gguf"}
    lanes = {"lanes": {"adaptive": {"training": training}}} if training else {}
    return ModelFile.model_validate({"model": "m", "base": base} | lanes)


def file_of_both_lanes() -> ModelFile:
    """The adaptive lane names another shape of adapters than the lane `master`."""
    lanes = {
        "adaptive": {"training": {"rank": 4, "targets": ["q_proj"], "layers": 1}},
        "master": {"training": {"rank": 32, "targets": ["v_proj"], "layers": 2}},
    }
    return ModelFile.model_validate(
        {"model": "m", "base": {"training": "base", "serving": "base.gguf"}, "lanes": lanes}
    )


async def interrupt(world: World, record: Record, model: ModelFile) -> None:
    """Let the power fail in the training of a run."""
    world.child.dies_at = Train
    with pytest.raises(RuntimeError, match="power"):
        await world.trainer(model).handle(record, is_owner)
    world.child.dies_at = None


def plan_of(world: World) -> Path:
    (plan,) = world.folder.glob("runs/*/plan.json")
    return plan


async def finish(world: World, record: Record, model: ModelFile) -> Train:
    handling = asyncio.create_task(world.trainer(model).handle(record, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    (trained,) = world.child.trained
    return trained


def promotion(saved: CheckpointSaved, version: str) -> VersionPromoted:
    return VersionPromoted(
        event_id=version,
        occurred_at=NOW,
        model="m",
        version=version,
        adapter=saved.adapter,
        actor="gate",
        reason="better",
    )


async def test_a_run_uses_settings_for_its_base(world: World) -> None:
    trained = await finish(world, batch_of(world), file())
    config = trained.configuration
    assert (config.layers, config.learning_rate, config.batch_size) == (None, 3e-3, 5)
    assert world.checkpoints[0].configuration.model_dump() == config.model_dump()
    assert world.checkpoints[0].metrics.examples_rehearsed == 24
    assert json.loads(plan_of(world).read_text())["configuration"] == config.model_dump(mode="json")


async def test_a_resumed_run_keeps_its_configuration(world: World) -> None:
    record = batch_of(world)
    await interrupt(world, record, file(epochs=7))
    trained = await finish(world, record, file(epochs=2))
    assert trained.configuration.epochs == 7
    assert world.checkpoints[0].configuration.epochs == 7


async def test_a_run_of_an_earlier_version_is_not_changed(world: World) -> None:
    """Its plan has no configuration, and it had no built-in rehearsal."""
    record, model = batch_of(world), file(rank=4)
    await interrupt(world, record, model)
    plan = json.loads(plan_of(world).read_text())
    del plan["configuration"]
    plan_of(world).write_text(json.dumps(plan))
    trained = await finish(world, record, model)
    former = TrainingConfig(rank=4).with_former_defaults()
    assert trained.configuration == former
    assert list(trained.examples) == tickets(0, 10)


async def test_a_continued_adapter_keeps_its_shape(world: World) -> None:
    """The champion was trained with the defaults of an earlier version."""
    shape = {"rank": 4, "targets": ["q_proj"], "layers": 1}
    await finish(world, batch_of(world), file(**shape))
    second = record_of(write_batch(world.store, "m", 1, tickets(20, 10), tickets(500, 12)))
    await world.publish(promotion(world.checkpoints[0], "v1"))
    world.child.gain = 0.0
    await world.trainer(file(rank=8)).handle(second, is_owner)
    config = world.child.trained[1].configuration
    assert (config.rank, config.targets, config.layers) == (8, ("q_proj",), 1)
    third = record_of(write_batch(world.store, "m", 2, tickets(40, 10), tickets(500, 12)))
    await world.trainer(file(lineage="fresh")).handle(third, is_owner)
    fresh = world.child.trained[2].configuration
    assert (fresh.rank, len(fresh.targets), fresh.layers) == (8, 7, None)


def shape_of(request: Train) -> tuple[object, ...]:
    config = request.configuration
    return config.rank, config.targets, config.layers


async def test_fast_runs_continue_a_promoted_master_version(world: World) -> None:
    """Its adapter has another shape than the adaptive lane names. Feedback that arrived meanwhile
    is replayed, and a master version that is not promoted changes nothing.
    """
    model = file_of_both_lanes()

    def batch(number: int, first: int, previous: BatchReady | None = None) -> BatchReady:
        manifest = previous.manifest if previous else None
        held_out = tickets(500, 12)
        return write_batch(world.store, "m", number, tickets(first, 10), held_out, manifest)

    async def run(announced: BatchReady, *, lane: Lane = "adaptive", gain: float) -> Train:
        world.child.gain = gain
        record = record_of(announced.model_copy(update={"lane": lane}))
        handling = asyncio.create_task(world.trainer(model).handle(record, is_owner))
        if gain > 0:
            await world.answer(1, "promoted", f"v{len(world.checkpoints) + 1}")
        await handling
        return world.child.trained[-1]

    feedback = batch(0, 0)
    await run(feedback, gain=0.0)
    master = await run(batch(1, 100), lane="master", gain=0.5)
    assert (master.parent, shape_of(master)) == (None, (32, ("v_proj",), 2))
    await world.publish(promotion(world.checkpoints[0], "v1"))
    newer = batch(2, 20, feedback)
    fast = await run(newer, gain=0.0)
    assert fast.parent is not None
    assert shape_of(fast) == (32, ("v_proj",), 2)
    assert set(fast.examples) >= {*tickets(20, 10), *tickets(0, 10)}
    await run(batch(3, 200), lane="master", gain=0.0)
    assert (world.rollbacks[-1].lineage, world.rollbacks[-1].outcome) == ("fresh", "inconclusive")
    after = await run(batch(4, 40, newer), gain=0.0)
    assert (after.parent, shape_of(after)) == (fast.parent, shape_of(fast))
