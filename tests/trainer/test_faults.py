"""What befalls a trainer in the middle of a run, on a real broker: each batch has one outcome, and
the next one is trained.
"""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from services.trainer.data.training_set import Sample
from shared.events import CheckpointSaved, TrainingRolledBack
from shared.failpoints import FAILPOINTS, parse_failpoints
from shared.messaging.topics import TRAINING_BATCHES
from tests.dataset.running import ServiceProcess
from tests.trainer.fleet import (
    SESSION,
    STALL_FIRST_CHECKPOINT,
    STALLED_STEP,
    STEPS,
    Fleet,
    make_base,
)
from tests.trainer.tickets import tickets

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

INTERRUPTED = "interrupted  "
"""What a trainer says of a run that it has stopped, with the space that its log fills up with."""


@pytest.fixture(scope="module")
def tiny(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    make_base(bases / "smollm2-135m-instruct", folder)
    return folder


@pytest.fixture(scope="module")
def steady(broker: str, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker that survives all that befalls it."""
    fleet = Fleet(broker, tiny, tmp_path_factory.mktemp("steady"), "faults-steady")
    asyncio.run(fleet.register_base())
    try:
        asyncio.run(fleet.start(RATCHET_TRAINER_STALLED_SECONDS="5"))
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
async def fleet(broker: str, tiny: Path, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(broker, tiny, tmp_path, f"faults-{tmp_path.name}"[:60].rstrip("_"))
    await fleet.register_base()
    try:
        yield fleet
    finally:
        fleet.close()


def child_of(worker: ServiceProcess) -> int:
    """The id of the training process that a worker has started last."""
    return int(worker.log.rsplit("training process started", 1)[1].split("pid=")[1].split()[0])


def limit(worker: ServiceProcess, what: int, size: int) -> None:
    """Bound a worker and its training process, and those that it starts from now on, to so many
    bytes; they may be unbounded again.
    """
    assert worker.process is not None
    resource.prlimit(worker.process.pid, what, (size, resource.RLIM_INFINITY))
    with suppress(ProcessLookupError):
        resource.prlimit(child_of(worker), what, (size, resource.RLIM_INFINITY))


def metrics_of(worker: ServiceProcess) -> dict[str, float]:
    """The metrics that bear a model, by name."""
    lines = (
        line.rsplit(" ", 1)
        for line in worker.metrics.splitlines()
        if "{model=" in line and "," not in line
    )
    return {name.split("{")[0]: float(value) for name, value in lines}


@pytest.mark.chaos
async def test_sigterm_in_mid_run_and_a_worker_with_another_disk_goes_on(fleet: Fleet) -> None:
    """What is told of the run on its way is complete, and what was left for the next owner is gone
    at its end.
    """
    one = await fleet.start(STALL_FIRST_CHECKPOINT)
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    assert one.stop(20) == 0
    assert await fleet.outcomes(batch) == []
    assert fleet.unfinished_files()
    before = await fleet.steps(batch)
    assert before[-1].step < STEPS
    two = await fleet.start()
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    after = (await fleet.steps(batch))[len(before) :]
    assert after[0].step > before[-1].step, (
        "steps were done again although it had stopped with a checkpoint"
    )
    assert fleet.unfinished_files() == []
    for told in before + after:
        assert None not in (
            told.loss,
            told.learning_rate,
            told.gradient_norm,
            told.tokens_per_second,
            told.seconds_left,
        )
    metrics = metrics_of(two)
    assert metrics["ratchet_training_resumed_total"] == 1
    assert metrics["ratchet_training_steps_total"] <= STEPS - STALLED_STEP
    assert metrics["ratchet_training_tokens_per_second"] > 0
    assert metrics["ratchet_training_gradient_norm"] > 0
    assert metrics["ratchet_training_checkpoints_total"] > 0
    assert metrics["ratchet_training_in_progress"] == 0


@pytest.mark.chaos
async def test_a_rebalance_in_mid_run(fleet: Fleet) -> None:
    """A third party joins the group and leaves it: two rebalances; each time the run goes on where
    it was stopped, with no step done again.
    """
    worker = await fleet.start(STALL_FIRST_CHECKPOINT)
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    await join_and_leave(fleet)
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    told = [event.step for event in await fleet.steps(batch)]
    assert told == sorted(set(told)), "steps were done again"
    assert metrics_of(worker)["ratchet_training_resumed_total"] == worker.log.count(INTERRUPTED) > 0


@pytest.mark.chaos
async def test_a_rebalance_in_mid_run_with_two_trainers(fleet: Fleet) -> None:
    """Whoever has the batch after it goes on from where its owner stopped."""
    workers = [fleet.launch(STALL_FIRST_CHECKPOINT), fleet.launch(STALL_FIRST_CHECKPOINT)]
    for worker in workers:
        await worker.wait_until(worker.is_ready, "ready", 240)
    await fleet.wait_until_members(len(workers))
    batch = await fleet.announce(fleet.batch())
    owner = await fleet.wait_until_step_logged(STALLED_STEP)
    await join_and_leave(fleet)
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    assert INTERRUPTED in owner.log
    told = [event.step for event in await fleet.steps(batch)]
    assert told == sorted(set(told)), "steps were done again"
    resumed = sum(metrics_of(worker).get("ratchet_training_resumed_total", 0) for worker in workers)
    assert resumed == sum(worker.log.count(INTERRUPTED) for worker in workers)


async def join_and_leave(fleet: Fleet) -> None:
    consumer = AIOKafkaConsumer(
        TRAINING_BATCHES,
        bootstrap_servers=fleet.bootstrap_servers,
        group_id=fleet.model,
        enable_auto_commit=False,
        session_timeout_ms=6000,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            while not consumer.assignment():
                await asyncio.sleep(0.1)
    finally:
        await consumer.stop()


DEATHS = (
    "trainer.planned=kill",
    "trainer.child_saving=kill, trainer.heard_step=kill@15",
    "trainer.child_written=kill, trainer.trained=kill",
    "trainer.recorded=kill",
    "trainer.published=kill",
    "trainer.ended=kill",
)
"""One worker after the other, each on a disk of its own. Where its training process dies as well,
that dies first.
"""


def test_the_deaths_are_at_every_step_of_a_run() -> None:
    assert sorted(order.name for death in DEATHS for order in parse_failpoints(death)) == sorted(
        row.name for row in FAILPOINTS if row.services == ("trainer",)
    )


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_kill_9_at_every_step_of_one_run(fleet: Fleet) -> None:
    batch = await fleet.announce(fleet.batch())
    answering = asyncio.create_task(fleet.wait_for_outcome(batch, 1700))
    for death in DEATHS:
        dying = await fleet.start(death)
        assert await dying.wait_for_exit(240) == -signal.SIGKILL
        assert dying.log.count("training process started") == 1 + ("child" in death)
    await fleet.start()
    outcome = await answering
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    assert fleet.unfinished_files() == []


@pytest.mark.chaos
async def test_kill_9_of_a_trainer_whose_child_is_saving_a_checkpoint(fleet: Fleet) -> None:
    """On its own disk again, where a half of a checkpoint lies."""
    dying = await fleet.start("trainer.child_saving=stall:5@2", work="disk")
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_logged(dying, "FAILPOINT reached")
    dying.kill()
    again = await fleet.start(work="disk")
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    assert metrics_of(again)["ratchet_training_resumed_total"] == 1


@pytest.mark.chaos
@pytest.mark.parametrize("point", ["trainer.heard_step", "trainer.recorded"])
async def test_a_trainer_that_sleeps_for_longer_than_its_session_and_wakes_up_after_its_successor(
    fleet: Fleet, point: str
) -> None:
    """In the middle of a run, and between its decision and its word. It sleeps until the test wakes
    it.
    """
    sleeper = await fleet.start(f"{point}=pause:300@{15 if point == 'trainer.heard_step' else 1}")
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_logged(sleeper, "FAILPOINT reached")
    successor = await fleet.start()
    outcome = await fleet.wait_for_outcome(batch)
    assert sleeper.process is not None
    sleeper.process.send_signal(signal.SIGCONT)
    await fleet.wait_for_outcome(await fleet.announce(fleet.batch()))
    await asyncio.sleep(SESSION)
    assert await fleet.outcomes(batch) == [outcome]
    assert "outcome  " not in sleeper.log.split("run begins")[1]
    for worker in (sleeper, successor):
        assert worker.stop(30) == 0


async def test_a_training_process_that_is_stuck_is_not_live_and_one_that_goes_on_is(
    steady: Fleet,
) -> None:
    (worker,) = steady.workers
    batch = await steady.announce(steady.batch(tickets(0, 120)))
    await steady.wait_until_step(batch, 5)
    os.kill(child_of(worker), signal.SIGSTOP)
    try:
        assert worker.is_live()
        await worker.wait_until(lambda: not worker.is_live(), "found out", 15)
    finally:
        os.kill(child_of(worker), signal.SIGCONT)
    await worker.wait_until(worker.is_live, "going on", 15)
    await steady.wait_for_outcome(batch)
    assert worker.is_live()


async def test_a_batch_that_needs_too_much_memory_is_rolled_back_with_advice_and_the_next_one_is_trained(
    steady: Fleet,
) -> None:
    """The logits that are in memory at a time are 64 MiB in fp32, and there are some of 8 answers
    of 900 tokens to compute.
    """
    (worker,) = steady.workers
    long = [
        Sample(messages=sample.messages, answer=sample.answer + " and so on" * 300)
        for sample in tickets(0, 24)
    ]
    limit(worker, resource.RLIMIT_AS, _size_of(child_of(worker)) + (1 << 26))
    outcome = await steady.wait_for_outcome(await steady.announce(steady.batch(long)))
    limit(worker, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    assert isinstance(outcome, TrainingRolledBack)
    assert outcome.outcome == "failed"
    assert (
        outcome.reason == "the training process died twice: the training process ran out of memory"
    )
    assert "batch_size 4 (now 8" in outcome.advice
    following = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    assert following.metrics is not None


async def test_a_full_disk_is_a_rollback_with_the_reason_and_the_next_batch_is_trained(
    steady: Fleet,
) -> None:
    """No file can grow beyond 60 kB, as on a full disk: a checkpoint is cut off in the middle. Then
    there is room again.
    """
    (worker,) = steady.workers
    limit(worker, resource.RLIMIT_FSIZE, 60_000)
    outcome = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    limit(worker, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert isinstance(outcome, TrainingRolledBack)
    assert outcome.outcome == "failed"
    assert "File too large" in outcome.reason
    assert "RATCHET_WORK" in outcome.advice
    following = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    assert following.metrics is not None


async def test_a_dataset_that_is_missing_or_altered_is_a_rollback_with_the_reason_and_the_next_batch_is_trained(
    steady: Fleet,
) -> None:
    missing, altered, whole = steady.batch(), steady.batch(), steady.batch()
    objects = steady.folder / "objects" / "batches" / steady.model
    (objects / str(missing.number) / "training.jsonl").unlink()
    (objects / str(altered.number) / "training.jsonl").write_text("{}")
    for batch in (missing, altered, whole):
        await steady.announce(batch)
    outcomes = [await steady.wait_for_outcome(batch) for batch in (missing, altered, whole)]
    assert [getattr(outcome, "outcome", "saved") for outcome in outcomes[:2]] == [
        "failed",
        "failed",
    ]
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, TrainingRolledBack)]
    assert "is not in the object store" in reasons[0]
    assert "altered or cut off" in reasons[1]
    assert isinstance(outcomes[2], CheckpointSaved) or outcomes[2].outcome != "failed"


def _size_of(process: int) -> int:
    """The address space of a process, in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()
