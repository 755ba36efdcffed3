"""The training process behaves the same on this machine and on a Ray cluster: one suite for both,
with a tiny model and a real cluster.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog

from services.trainer.data.training_set import Sample
from services.trainer.errors import RunFailed, RunInterrupted, TrainingProcessEnded
from services.trainer.protocol import (
    EvaluationProgress,
    Generate,
    Generated,
    Load,
    Loaded,
    Score,
    Scores,
    Stepped,
    Train,
    Trained,
)
from services.trainer.worker.client import TrainingProcess, ray_launch
from shared.config.training import TrainingConfig
from shared.events import Message
from tests.trainer.tiny import save_tiny
from tests.trainer.worker.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.chaos
"""Slow: a training process takes seconds to start, and a cluster takes longer."""

SAMPLES = tuple(
    Sample(
        messages=(Message(role="user", content=f"ticket {number}"),), answer=f"queue {number % 7}"
    )
    for number in range(24)
)
CONFIG = TrainingConfig(rank=4, alpha=8, batch_size=8, epochs=40, dropout=0.1, precision="fp32")
STEPS = 120


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


Kill = Callable[[TrainingProcess], None]


@pytest.fixture(params=["local", "ray"])
async def process_and_kill(
    request: pytest.FixtureRequest, base: Path, tmp_path: Path
) -> AsyncIterator[tuple[TrainingProcess, Kill]]:
    """A training process, and a function that kills it without warning."""
    if request.param == "local":
        process = TrainingProcess(1, structlog.stdlib.get_logger())

        def kill(process: TrainingProcess) -> None:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
    else:
        cluster: RayCluster = request.getfixturevalue("cluster")
        process = TrainingProcess(
            1,
            structlog.stdlib.get_logger(),
            launch=ray_launch(cluster.client, 0, 1, tmp_path, [base]),
        )

        def kill(process: TrainingProcess) -> None:
            (worker,) = cluster.workers()
            os.kill(worker, signal.SIGKILL)

    try:
        yield process, kill
    finally:
        await process.stop()


def training(folder: Path, out: str) -> Train:
    return Train(
        examples=SAMPLES,
        configuration=CONFIG,
        parent=None,
        checkpoints=folder / out,
        out=folder / out / "adapter",
        base_name="tiny",
    )


def weights(train: Train) -> bytes:
    return (train.out / "adapter_model.safetensors").read_bytes()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # asyncio warns about the pipes of the killed process
async def test_training_process_lifecycle(
    process_and_kill: tuple[TrainingProcess, Kill], base: Path, tmp_path: Path
) -> None:
    """Covers the whole life of a process, up to its replacement after its death: starting takes
    seconds, training a tiny model hardly any time.
    """
    process, kill = process_and_kill

    with pytest.raises(RunFailed, match="no base is loaded"):
        await process.request(Score(adapter=None, samples=SAMPLES, max_tokens=64), Scores)
    with pytest.raises(RunFailed, match="cannot be loaded"):
        await process.request(Load(base=tmp_path / "nothing", precision="fp32"), Loaded)
    load = Load(base=base, precision="fp32")
    await process.request(load, Loaded)
    assert not await process.interrupt(), "no training is running"

    # Stop after a step, with a checkpoint, and resume: the result equals an uninterrupted run.
    steps: list[int] = []
    stopping: list[asyncio.Task[bool]] = []

    async def stop_at_once(reply: Stepped | EvaluationProgress) -> None:
        assert isinstance(reply, Stepped)
        assert reply.total_steps == STEPS
        steps.append(reply.step)
        if not stopping:
            stopping.append(asyncio.create_task(process.interrupt()))

    cut, whole = training(tmp_path, "cut"), training(tmp_path, "whole")
    with pytest.raises(RunInterrupted) as interrupted:
        await process.request(cut, Trained, stop_at_once)
    assert await stopping[0]
    assert steps == list(range(1, interrupted.value.step + 1))
    assert len(steps) < STEPS
    assert not cut.out.exists()
    assert (await process.request(cut, Trained, stop_at_once)).steps == STEPS
    assert steps == list(range(1, STEPS + 1))
    await process.request(whole, Trained)
    assert weights(cut) == weights(whole)

    progress: list[int] = []

    async def count(reply: Stepped | EvaluationProgress) -> None:
        assert isinstance(reply, EvaluationProgress)
        progress.append(reply.done)

    before, after = [
        (
            await process.request(
                Score(adapter=adapter, samples=SAMPLES, max_tokens=64), Scores, count
            )
        ).scores
        for adapter in (None, whole.out)
    ]
    assert sum(after) > sum(before)
    assert progress[-1] == len(SAMPLES)

    # Kill the process during training: the next request starts a new one, which resumes from the
    # checkpoint.
    steps.clear()
    killed = training(tmp_path, "killed").model_copy(
        update={"configuration": CONFIG.model_copy(update={"save_steps": 20})}
    )

    async def kill_at_once(reply: Stepped | EvaluationProgress) -> None:
        assert isinstance(reply, Stepped)
        steps.append(reply.step)
        if reply.step == 25 and len(steps) == 25:
            kill(process)

    with pytest.raises(TrainingProcessEnded):
        await process.request(killed, Trained, kill_at_once)
    steps_before_kill = len(steps)
    await process.request(load, Loaded)
    assert (await process.request(killed, Trained, kill_at_once)).steps == STEPS
    assert steps[steps_before_kill] in range(21, STEPS, 20), (
        "resumed from a checkpoint, not from the beginning"
    )
    prompts = tuple(sample.messages for sample in SAMPLES[:2])
    generate = Generate(
        adapter=killed.out, probes=prompts, prompts=prompts[:1], max_tokens=64, max_new_tokens=4
    )
    generated = await process.request(generate, Generated, count)
    assert (len(generated.probes), len(generated.prompts)) == (2, 1)


async def test_worker_is_released_and_stale_worker_is_killed(
    cluster: RayCluster, base: Path, tmp_path: Path
) -> None:
    """A killed relay cannot release its worker; a trainer has only one worker at a time
    nevertheless.
    """
    launch = ray_launch(cluster.client, 0, 1, tmp_path, [base])
    first, second = [
        TrainingProcess(1, structlog.stdlib.get_logger(), launch=launch) for _ in range(2)
    ]
    try:
        await first.request(Load(base=base, precision="fp32"), Loaded)
        (earlier,) = cluster.training_processes()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await second.request(Load(base=base, precision="fp32"), Loaded)
        (later,) = cluster.training_processes()
        assert later != earlier
    finally:
        await first.stop()
        await second.stop()
    async with asyncio.timeout(20):
        while cluster.training_processes():
            await asyncio.sleep(0.1)
