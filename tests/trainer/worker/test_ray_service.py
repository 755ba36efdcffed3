"""The trainer with its training process on a Ray cluster: failures of a run on a real broker and a
real cluster.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.events import CheckpointSaved
from tests.trainer.fleet import STALL_FIRST_CHECKPOINT, STALLED_STEP, STEPS, Fleet, make_base
from tests.trainer.worker.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture
async def fleet(broker: str, bases: Path, tmp_path: Path) -> AsyncIterator[Fleet]:
    make_base(bases / "smollm2-135m-instruct", tmp_path / "bases" / "tiny")
    fleet = Fleet(broker, tmp_path / "bases" / "tiny", tmp_path, "ray-service")
    await fleet.register_base()
    try:
        yield fleet
    finally:
        fleet.close()


async def test_run_on_ray_survives_trainer_and_worker(fleet: Fleet, cluster: RayCluster) -> None:
    """A trainer is stopped during a run and leaves its checkpoint; the worker of the next trainer
    is killed. Steps reported before the stop are not repeated, and the run has one outcome.
    """
    variables = {"RATCHET_RAY_ADDRESS": cluster.client, "RATCHET_RAY_GPUS": "0"}
    first = await fleet.start(STALL_FIRST_CHECKPOINT, **variables)
    assert len(cluster.training_processes()) == 1
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    assert first.stop(30) == 0
    assert await fleet.outcomes(batch) == []
    assert fleet.unfinished_files()
    before = await fleet.steps(batch)
    assert before[-1].step < STEPS

    second = await fleet.start("trainer.child_written=stall:8", **variables)
    await fleet.wait_until_step(batch, STEPS)
    (worker,) = cluster.workers()
    os.kill(worker, signal.SIGKILL)
    outcome = await fleet.wait_for_outcome(batch)
    assert isinstance(outcome, CheckpointSaved) or outcome.verdict is not None
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    after = (await fleet.steps(batch))[len(before) :]
    assert after[0].step > before[-1].step
    assert second.stop(30) == 0
    async with asyncio.timeout(60):
        while cluster.training_processes():
            await asyncio.sleep(0.2)
