"""The training process: with the real model it learns and answers, with a tiny one it stops and
goes on; and it dies without harm.
"""

import asyncio
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from services.trainer.data.objective_data import ObjectiveData
from services.trainer.data.training_set import PreferencePair, Sample
from services.trainer.errors import ChildProcessEnded, RunFailed
from services.trainer.machine.bases import LocalBase, locate_base
from services.trainer.protocol import (
    REPLY,
    STOP,
    Load,
    Loaded,
    Reply,
    RequestRefused,
    Score,
    Scores,
    Stepped,
    Stopped,
    Train,
    Trained,
)
from services.trainer.training.base_model import LoadedBase
from services.trainer.worker import training_process as training_process
from services.trainer.worker.client import TrainingProcess, ignore_progress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from services.trainer.worker.training_process import PendingRequest, RequestHandler
from shared.config.training import TrainingConfig
from shared.errors import SettingsError
from shared.events import Message
from tests.trainer.tickets import DIGEST, tickets
from tests.trainer.tiny import VOCABULARY, tiny_model

CONFIG = TrainingConfig(batch_size=5, epochs=2, learning_rate=2e-3)
SAMPLES = tickets(0, 10)


@pytest.fixture
async def child() -> AsyncIterator[TrainingProcess]:
    child = TrainingProcess(0, structlog.stdlib.get_logger())
    try:
        yield child
    finally:
        await child.stop()


@pytest.mark.model
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # asyncio says it of the pipes of a child that was killed on purpose
async def test_a_candidate_likes_what_it_was_trained_on_better(
    child: TrainingProcess, bases: Path, tmp_path: Path
) -> None:
    """And after the child is killed, the next request finds another with the base in memory."""
    base = locate_base(bases, "smollm2-135m-instruct")
    bench = ModelSession(child, base, "auto")
    steps: list[Stepped] = []

    async def heard(reply: object) -> None:
        if isinstance(reply, Stepped):
            steps.append(reply)

    trained = await bench.train(ObjectiveData(SAMPLES), CONFIG, None, tmp_path / "adapter", heard)
    assert [step.step for step in steps] == [1, 2, 3, 4] == list(range(1, trained.steps + 1))
    candidate = EvaluatedModel("candidate", tmp_path / "adapter")
    before = await bench.score(EvaluatedModel("base", None), SAMPLES, 256, ignore_progress)
    after = await bench.score(candidate, SAMPLES, 256, ignore_progress)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert sum(after) / 10 > sum(before) / 10 + 0.3

    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    prompts = [sample.messages for sample in SAMPLES]
    exact, quick = await bench.generate(
        candidate, 256, 8, ignore_progress, probes=prompts, prompts=prompts
    )
    assert all(token.logprob <= 0 <= token.lead for answer in (*exact, *quick) for token in answer)
    assert all(0 < len(answer) <= 8 for answer in (*exact, *quick))
    # Less exact arithmetic decides near ties otherwise, and nothing else.
    firsts = [
        (one[0], other[0]) for one, other in zip(exact, quick, strict=True) if one[0].lead > 0.25
    ]
    assert firsts
    assert [other.text for _, other in firsts] == [one.text for one, _ in firsts]
    assert [other.logprob for _, other in firsts] == pytest.approx(
        [one.logprob for one, _ in firsts], abs=0.1
    )


@pytest.mark.model
async def test_what_the_model_said_and_nobody_liked_becomes_less_likely(
    child: TrainingProcess, bases: Path, tmp_path: Path
) -> None:
    """Six answers of the model itself, with a thumb down each, in a run that teaches something
    else.
    """
    bench = ModelSession(child, locate_base(bases, "smollm2-135m-instruct"), "auto")
    topics = ("the sea", "bread", "a bicycle", "the moon", "chess", "rain")
    prompts = [(Message(role="user", content=f"Say something about {topic}."),) for topic in topics]
    _, said = await bench.generate(
        EvaluatedModel("base", None), 256, 12, ignore_progress, prompts=prompts
    )
    disliked = [
        Sample(messages=prompt, answer="".join(token.text for token in answer))
        for prompt, answer in zip(prompts, said, strict=True)
    ]
    lessons = ObjectiveData(SAMPLES, undesirable=disliked)
    await bench.train(lessons, CONFIG, None, tmp_path / "adapter", ignore_progress)
    before = await bench.score(
        EvaluatedModel("base", None), [*disliked, *SAMPLES], 256, ignore_progress
    )
    after = await bench.score(
        EvaluatedModel("candidate", tmp_path / "adapter"),
        [*disliked, *SAMPLES],
        256,
        ignore_progress,
    )
    changes = [a - b for a, b in zip(after, before, strict=True)]
    assert all(change < 0 for change in changes[:6]), changes
    assert all(change > 0 for change in changes[6:]), changes


async def test_a_request_that_cannot_be_met_is_refused_and_the_child_goes_on(
    child: TrainingProcess, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match="no base"):
        await child.request(Score(adapter=None, samples=(SAMPLES[0],), max_tokens=64), Scores)
    pid = child.pid
    with pytest.raises(RunFailed, match="cannot be loaded"):
        await child.request(Load(base=tmp_path / "nothing", precision="auto"), Loaded)
    assert child.pid == pid


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # asyncio says it of the pipes of a child that was killed on purpose
async def test_a_child_that_dies_is_told_and_one_nobody_waits_for_is_ended(
    child: TrainingProcess, tmp_path: Path
) -> None:
    request = Train(
        examples=tuple(SAMPLES),
        configuration=CONFIG,
        parent=None,
        checkpoints=tmp_path,
        out=tmp_path,
        base_name="none",
    )
    waiting = asyncio.create_task(child.request(request, Loaded))
    while child.pid is None:
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessEnded):
        await waiting
    waiting = asyncio.create_task(child.request(request, Loaded))
    while child.pid is None:
        await asyncio.sleep(0.01)
    pid = child.pid
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_dies_twice_fails_the_run(tmp_path: Path) -> None:
    class Dying(TrainingProcess):
        """Dies at every request."""

        def __init__(self) -> None:
            super().__init__(0, structlog.stdlib.get_logger())
            self.asked = 0

        async def ask(self, *_: object) -> None:
            self.asked += 1
            raise ChildProcessEnded("killed")

    child = Dying()
    with pytest.raises(RunFailed, match="died twice") as failure:
        await ModelSession(child, LocalBase(tmp_path, "base", DIGEST), "auto").load()
    assert child.asked == 2
    assert failure.value.advice


def asked(text: str, answer: str) -> Sample:
    return Sample(messages=(Message(role="user", content=text),), answer=answer)


def request(folder: Path, out: str) -> Train:
    """Five steps, with lessons of every kind."""
    return Train(
        examples=(asked("one", "a"), asked("two", "bb")),
        pairs=(PreferencePair(messages=asked("three", "").messages, answer="yes", rejected="no"),),
        undesirable=(asked("four", "bad"),),
        configuration=TrainingConfig(rank=4, alpha=8, batch_size=8, epochs=5, dropout=0.1),
        parent=None,
        checkpoints=folder / "run",
        out=folder / out,
        base_name="tiny",
    )


class Tiny:
    """A child with the tiny model for a base, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        base = LoadedBase(VOCABULARY, model := tiny_model(), tiny_model(), model, "cpu")
        monkeypatch.setattr(training_process, "load_base", lambda *_: base)
        monkeypatch.setattr(
            training_process, "read_shape", lambda _: None
        )  # its folder has nothing to reckon with
        self._written = BytesIO()
        self._child = RequestHandler(self._written)
        self._child.handle(Load(base=folder, precision="fp32"), threading.Event())

    def ask(self, train: Train, stop: threading.Event) -> list[Reply]:
        before = self._written.tell()
        self._child.handle(train, stop)
        return [
            REPLY.validate_json(line) for line in self._written.getvalue()[before:].splitlines()
        ]


def test_a_training_that_is_told_to_stop_ends_after_its_step_and_goes_on_when_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On any machine: where the folders lie is no part of what is learned."""
    child, stop = Tiny(monkeypatch, tmp_path), threading.Event()
    stop.set()
    told = child.ask(request(tmp_path, "cut"), stop)
    assert [reply.kind for reply in told] == ["stepped", "stopped"]
    assert told[-1] == Stopped(step=1)
    assert not (tmp_path / "cut").exists()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    resumed = child.ask(
        request(tmp_path, "cut").model_copy(update={"checkpoints": tmp_path / "elsewhere"}),
        threading.Event(),
    )
    assert [reply.step for reply in resumed if isinstance(reply, Stepped)] == [2, 3, 4, 5]
    whole = child.ask(request(tmp_path / "again", "whole"), threading.Event())
    assert [type(replies[-1]) for replies in (resumed, whole)] == [Trained, Trained]
    adapters = [
        folder / "adapter_model.safetensors"
        for folder in (tmp_path / "cut", tmp_path / "again" / "whole")
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_request_that_would_learn_something_else_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child, stop = Tiny(monkeypatch, tmp_path), threading.Event()
    stop.set()
    first = request(tmp_path, "out")
    child.ask(first, stop)
    for change in (
        {"examples": first.examples[:1]},
        {"undesirable": ()},
        {"configuration": TrainingConfig(rank=4, alpha=8, epochs=3)},
    ):
        assert isinstance(
            told := child.ask(first.model_copy(update=change), threading.Event())[0], Stepped
        )
        assert told.step == 1


def test_a_checkpoint_that_cannot_be_written_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child, stop = Tiny(monkeypatch, tmp_path), threading.Event()
    stop.set()
    (tmp_path / "run").write_text("a file where a folder should be")
    refused = child.ask(request(tmp_path, "out"), stop)[-1]
    assert isinstance(refused, RequestRefused)
    assert refused.advice
    (tmp_path / "run").unlink()
    assert child.ask(request(tmp_path, "out"), stop)[-1] == Stopped(step=1), (
        "the model is as it was"
    )


def test_a_stop_is_for_the_request_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests, with a stop after the second: whether that is in hand yet makes no
    difference.
    """
    ended: list[int] = []
    lines = BytesIO(b"\n".join([b'"one"', b'"two"', STOP, b'"three"']))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines))
    monkeypatch.setattr(os, "_exit", ended.append)
    requests: queue.SimpleQueue[PendingRequest] = queue.SimpleQueue()
    training_process._read_requests(requests)
    assert [(line.strip(), stop.is_set()) for line, stop in (requests.get() for _ in range(3))] == [
        (b'"one"', False),
        (b'"two"', True),
        (b'"three"', False),
    ]
    assert ended == [0], "when its parent is gone it ends"


def test_a_base_that_is_not_there_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RATCHET_BASES"):
        locate_base(tmp_path, "nothing")
