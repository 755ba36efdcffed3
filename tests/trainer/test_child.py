"""The training process with the real model: it learns, it answers, and it dies without harm."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from services.trainer.bases import Base, locate
from services.trainer.bench import Bench, Subject
from services.trainer.child_process import ChildProcess, ignore
from services.trainer.failures import ChildEnded, RunFailed
from services.trainer.protocol import Load, Loaded, Score, Scored, Stepped, Train
from shared.errors import SettingsError
from shared.training_config import TrainingConfig
from tests.trainer.tickets import DIGEST, tickets

CONFIG = TrainingConfig(batch_size=5, epochs=2, learning_rate=2e-3)
SAMPLES = tickets(0, 10)


@pytest.fixture
async def child() -> AsyncIterator[ChildProcess]:
    child = ChildProcess(0, structlog.stdlib.get_logger())
    try:
        yield child
    finally:
        await child.stop()


@pytest.mark.model
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio says it of the pipes of a child that was killed on purpose
async def test_a_candidate_likes_what_it_was_trained_on_better(child: ChildProcess, bases: Path, tmp_path: Path) -> None:
    """And after the child is killed, the next request finds another with the base in memory."""
    base = locate(bases, "smollm2-135m-instruct")
    bench = Bench(child, base, "auto")
    steps: list[Stepped] = []

    async def heard(reply: object) -> None:
        if isinstance(reply, Stepped):
            steps.append(reply)

    trained = await bench.train(SAMPLES, CONFIG, None, tmp_path / "adapter", heard)
    assert [step.step for step in steps] == [1, 2, 3, 4] == list(range(1, trained.steps + 1))
    candidate = Subject("candidate", tmp_path / "adapter")
    before = await bench.score(Subject("base", None), SAMPLES, 256, ignore)
    after = await bench.score(candidate, SAMPLES, 256, ignore)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert sum(after) / 10 > sum(before) / 10 + 0.3

    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    answers = await bench.answer(candidate, [SAMPLES[0].messages, SAMPLES[1].messages], 256, 8, ignore)
    assert all(token.logprob <= 0 <= token.lead for answer in answers for token in answer)
    assert all(0 < len(answer) <= 8 for answer in answers)


async def test_a_request_that_cannot_be_met_is_refused_and_the_child_goes_on(child: ChildProcess, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no base"):
        await child.ask(Score(adapter=None, samples=(SAMPLES[0],), max_tokens=64), Scored)
    pid = child.pid
    with pytest.raises(RunFailed, match="cannot be loaded"):
        await child.ask(Load(base=tmp_path / "nothing", precision="auto"), Loaded)
    assert child.pid == pid


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio says it of the pipes of a child that was killed on purpose
async def test_a_child_that_dies_is_told_and_one_nobody_waits_for_is_ended(child: ChildProcess, tmp_path: Path) -> None:
    request = Train(examples=tuple(SAMPLES), configuration=CONFIG, parent=None, checkpoints=tmp_path, out=tmp_path, base_name="none")
    waiting = asyncio.create_task(child.ask(request, Loaded))
    while child.pid is None:
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildEnded):
        await waiting
    waiting = asyncio.create_task(child.ask(request, Loaded))
    while child.pid is None:
        await asyncio.sleep(0.01)
    pid = child.pid
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_dies_twice_fails_the_run(tmp_path: Path) -> None:
    class Dying(ChildProcess):
        """Dies at every request."""

        def __init__(self) -> None:
            super().__init__(0, structlog.stdlib.get_logger())
            self.asked = 0

        async def ask(self, *_: object) -> None:  # type: ignore[override]  # a fake that answers nothing
            self.asked += 1
            raise ChildEnded("killed")

    child = Dying()
    with pytest.raises(RunFailed, match="died twice") as failure:
        await Bench(child, Base(tmp_path, "base", DIGEST), "auto").load()
    assert child.asked == 2
    assert failure.value.advice


def test_a_base_that_is_not_there_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RATCHET_BASES"):
        locate(tmp_path, "nothing")
