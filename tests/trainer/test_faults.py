"""Failures of a trainer during a run, on a real broker: each batch has one outcome, and the next
batch is trained.
"""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from services.trainer.data.training_set import Sample
from services.trainer.run.second_attempt import RATE_FACTOR
from shared.events import CheckpointSaved, TrainingRolledBack
from shared.failpoints import FAILPOINTS, parse_failpoints
from shared.messaging.topics import TRAINING_BATCHES
from tests.support.service_process import ServiceProcess
from tests.support.tickets import tickets
from tests.trainer.fleet import (
    SESSION,
    STALL_FIRST_CHECKPOINT,
    STALLED_STEP,
    STEPS,
    Fleet,
    make_base,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

INTERRUPTED = "interrupted  "
"""Log event of a suspended run, with the padding of the console format."""


@pytest.fixture(scope="module")
def tiny(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    make_base(bases / "smollm2-135m-instruct", folder)
    return folder


@pytest.fixture(scope="module")
def steady(broker: str, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker, shared by the failures that it survives."""
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
    """Return the process id of a worker's newest training process."""
    return int(worker.log.rsplit("training process started", 1)[1].split("pid=")[1].split()[0])


def set_limit(worker: ServiceProcess, limit: int, size: int) -> None:
    """Limit a resource of a worker and its training processes, present and future, to `size` bytes;
    the hard limit stays infinite.
    """
    assert worker.process is not None
    resource.prlimit(worker.process.pid, limit, (size, resource.RLIM_INFINITY))
    with suppress(ProcessLookupError):
        resource.prlimit(child_of(worker), limit, (size, resource.RLIM_INFINITY))


def metrics_of(worker: ServiceProcess) -> dict[str, float]:
    """Return the metrics whose only label is the model, by name."""
    lines = (
        line.rsplit(" ", 1)
        for line in worker.metrics.splitlines()
        if "{model=" in line and "," not in line
    )
    return {name.split("{")[0]: float(value) for name, value in lines}


@pytest.mark.chaos
async def test_run_resumes_elsewhere_after_sigterm(fleet: Fleet) -> None:
    """Step events are complete, and the hand-off files are deleted at the end."""
    first = await fleet.start(STALL_FIRST_CHECKPOINT)
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    assert first.stop(20) == 0
    assert f"saving after step {STALLED_STEP + 1} of {STEPS}" in first.log
    assert await fleet.outcomes(batch) == []
    assert fleet.unfinished_files()
    before = await fleet.steps(batch)
    assert before[-1].step < STEPS
    second = await fleet.start()
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    after = (await fleet.steps(batch))[len(before) :]
    assert after[0].step > before[-1].step, "steps were repeated although a checkpoint was saved"
    assert fleet.unfinished_files() == []
    for event in before + after:
        assert None not in (
            event.loss,
            event.learning_rate,
            event.gradient_norm,
            event.tokens_per_second,
            event.seconds_left,
        )
    metrics = metrics_of(second)
    assert metrics["ratchet_training_resumed_total"] == 1
    assert metrics["ratchet_training_steps_total"] <= STEPS - STALLED_STEP
    assert metrics["ratchet_training_tokens_per_second"] > 0
    assert metrics["ratchet_training_gradient_norm"] > 0
    assert metrics["ratchet_training_checkpoints_total"] > 0
    assert metrics["ratchet_training_in_progress"] == 0


@pytest.mark.chaos
async def test_sigterm_waits_for_a_slow_step(fleet: Fleet) -> None:
    """The step ends 20 seconds after the signal. With a limit of one second for the stop, its
    progress is lost, and the log has a line about it.
    """
    slow = "trainer.child_saving=stall:20"
    hasty = await fleet.start(slow, RATCHET_STOP_SECONDS="1")
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    assert hasty.stop(20) == 0
    assert "the running step did not end within 1 s" in hasty.log
    assert fleet.unfinished_files() == []
    patient = await fleet.start(slow, RATCHET_STOP_SECONDS="600")
    await fleet.wait_until_logged(patient, f" step={STALLED_STEP} ")
    assert patient.stop(120) == 0
    assert f"saving after step {STALLED_STEP + 1} of {STEPS}" in patient.log
    before = await fleet.steps(batch)
    await fleet.start()
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    after = (await fleet.steps(batch))[len(before) :]
    assert after[0].step > STALLED_STEP + 1


@pytest.mark.chaos
async def test_run_resumes_after_rebalances(fleet: Fleet) -> None:
    """Another consumer joins the group and leaves it: two rebalances. Each time the run resumes
    where it stopped, and no step is repeated.
    """
    worker = await fleet.start(STALL_FIRST_CHECKPOINT)
    batch = await fleet.announce(fleet.batch())
    await fleet.wait_until_step_logged(STALLED_STEP)
    await join_and_leave_group(fleet)
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    steps = [event.step for event in await fleet.steps(batch)]
    assert steps == sorted(set(steps)), "steps were repeated"
    assert metrics_of(worker)["ratchet_training_resumed_total"] == worker.log.count(INTERRUPTED) > 0


@pytest.mark.chaos
async def test_run_resumes_after_rebalances_of_two_trainers(fleet: Fleet) -> None:
    """The owner after the rebalances resumes where the previous owner stopped."""
    workers = [fleet.launch(STALL_FIRST_CHECKPOINT), fleet.launch(STALL_FIRST_CHECKPOINT)]
    for worker in workers:
        await worker.wait_until(worker.is_ready, "ready", 240)
    await fleet.wait_until_members(len(workers))
    batch = await fleet.announce(fleet.batch())
    owner = await fleet.wait_until_step_logged(STALLED_STEP)
    await join_and_leave_group(fleet)
    outcome = await fleet.wait_for_outcome(batch)
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    assert INTERRUPTED in owner.log
    steps = [event.step for event in await fleet.steps(batch)]
    assert steps == sorted(set(steps)), "steps were repeated"
    resumed = sum(metrics_of(worker).get("ratchet_training_resumed_total", 0) for worker in workers)
    assert resumed == sum(worker.log.count(INTERRUPTED) for worker in workers)


async def join_and_leave_group(fleet: Fleet) -> None:
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


CRASHES = (
    "trainer.planned=kill",
    "trainer.child_saving=kill, trainer.heard_step=kill@15",
    "trainer.child_written=kill, trainer.trained=kill",
    "trainer.recorded=kill",
    "trainer.published=kill",
    "trainer.ended=kill",
)
"""Failpoints of one worker after the other, each with its own disk. If the training process dies as
well, it dies first.
"""


def test_crashes_cover_every_failpoint() -> None:
    assert sorted(order.name for crash in CRASHES for order in parse_failpoints(crash)) == sorted(
        row.name for row in FAILPOINTS if row.services == ("trainer",)
    )


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_run_survives_kill_9_at_every_step(fleet: Fleet) -> None:
    batch = await fleet.announce(fleet.batch())
    answering = asyncio.create_task(fleet.wait_for_outcome(batch, 1700))
    for crash in CRASHES:
        dying = await fleet.start(crash)
        assert await dying.wait_for_exit(240) == -signal.SIGKILL
        assert dying.log.count("training process started") == 1 + ("child" in crash)
    await fleet.start()
    outcome = await answering
    assert outcome.metrics is not None
    assert outcome.metrics.steps == STEPS
    assert fleet.unfinished_files() == []


def declare_regression_set(fleet: Fleet) -> None:
    """Give the fleet's model a regression set that any training fails."""
    rows = [
        {"messages": [{"role": "user", "content": f"Tell me about {topic}."}]}
        for topic in ("the sea", "bread", "snow", "trains")
    ]
    folder = fleet.folder / "models"
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (folder / f"{fleet.model}.yaml").open("a") as file:
        file.write("gate: {regression_set: general.jsonl, regression_margin: 0.0001}\n")


@pytest.mark.chaos
@pytest.mark.timeout(1200)
async def test_second_attempt_survives_kill_9(fleet: Fleet) -> None:
    """Each worker has its own disk. The first dies when it has trained, the second in the second
    attempt after its first checkpoint. An undisturbed run of the same examples has the same result.
    """
    declare_regression_set(fleet)
    batch = await fleet.announce(fleet.batch(held_out=20))
    answering = asyncio.create_task(fleet.wait_for_outcome(batch, 1100))
    for crash in ("trained=kill", "heard_step=kill@15"):
        dying = await fleet.start(f"trainer.{crash}")
        assert await dying.wait_for_exit(240) == -signal.SIGKILL
    assert "retrying" in dying.log
    last = await fleet.start()
    outcome = await answering
    assert "training resumed from a checkpoint" in last.log
    undisturbed = await fleet.wait_for_outcome(await fleet.announce(fleet.batch(held_out=20)))
    results = []
    for event in (outcome, undisturbed):
        assert isinstance(event, TrainingRolledBack)
        assert event.verdict is not None
        assert event.metrics is not None
        assert (event.outcome, event.verdict.attempt) == ("rejected", 2)
        assert not event.verdict.quarantines_batch
        assert event.configuration.learning_rate == 0.001 * RATE_FACTOR
        assert event.metrics.steps == STEPS
        results.append((event.metrics.training_loss, event.verdict.comparisons[2]))
    assert results[0] == results[1]
    assert fleet.unfinished_files() == []


@pytest.mark.chaos
async def test_run_survives_kill_9_while_saving_a_checkpoint(fleet: Fleet) -> None:
    """It restarts on the same disk, with half a checkpoint on it."""
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
async def test_waking_trainer_does_not_repeat_an_outcome(fleet: Fleet, point: str) -> None:
    """During training, and between recording and publishing the outcome. It sleeps until the test
    wakes it.
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
    assert "outcome  " not in sleeper.log.split("run started")[1]
    for worker in (sleeper, successor):
        assert worker.stop(30) == 0


async def test_stuck_training_process_is_not_live(
    steady: Fleet,
) -> None:
    (worker,) = steady.workers
    batch = await steady.announce(steady.batch(tickets(0, 120)))
    await steady.wait_until_step(batch, 5)
    os.kill(child_of(worker), signal.SIGSTOP)
    try:
        assert worker.is_live()
        await worker.wait_until(lambda: not worker.is_live(), "not live", 15)
    finally:
        os.kill(child_of(worker), signal.SIGCONT)
    await worker.wait_until(worker.is_live, "live", 15)
    await steady.wait_for_outcome(batch)
    assert worker.is_live()


async def test_out_of_memory_rolls_back_with_advice(
    steady: Fleet,
) -> None:
    """The logits of one chunk take 64 MiB in fp32; those of 8 answers of 900 tokens are needed."""
    (worker,) = steady.workers
    long = [
        Sample(messages=sample.messages, answer=sample.answer + " and so on" * 300)
        for sample in tickets(0, 24)
    ]
    set_limit(worker, resource.RLIMIT_AS, _size_of(child_of(worker)) + (1 << 26))
    outcome = await steady.wait_for_outcome(await steady.announce(steady.batch(long)))
    set_limit(worker, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    assert isinstance(outcome, TrainingRolledBack)
    assert outcome.outcome == "failed"
    assert (
        outcome.reason == "the training process died twice: the training process ran out of memory"
    )
    assert "batch_size 4 (now 8" in outcome.advice
    next_outcome = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    assert next_outcome.metrics is not None


async def test_full_disk_rolls_back_with_reason(
    steady: Fleet,
) -> None:
    """No file can grow beyond 60 kB, as on a full disk: a checkpoint is cut off. Then there is
    space again.
    """
    (worker,) = steady.workers
    set_limit(worker, resource.RLIMIT_FSIZE, 60_000)
    outcome = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    set_limit(worker, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert isinstance(outcome, TrainingRolledBack)
    assert outcome.outcome == "failed"
    assert "File too large" in outcome.reason
    assert "RATCHET_WORK" in outcome.advice
    next_outcome = await steady.wait_for_outcome(await steady.announce(steady.batch()))
    assert next_outcome.metrics is not None


async def test_invalid_dataset_rolls_back_with_reason(
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
    """Return the size of a process's address space in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[0]) * resource.getpagesize()
