"""The training process: trains and generates with the real model, stops and resumes with a tiny
one, and fails safely.
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
from services.trainer.errors import RunFailed, TrainingProcessEnded
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
from services.trainer.worker import request_handler, training_process
from services.trainer.worker.client import TrainingProcess, ignore_progress
from services.trainer.worker.model_session import EvaluatedModel, ModelSession
from services.trainer.worker.request_handler import RequestHandler
from services.trainer.worker.training_process import PendingRequest
from shared.config.training import TrainingConfig
from shared.errors import SettingsError
from shared.events import Message
from tests.support.tickets import DIGEST, tickets
from tests.trainer.tiny import VOCABULARY, tiny_model

CONFIG = TrainingConfig(batch_size=5, epochs=2, learning_rate=2e-3)
SAMPLES = tickets(0, 10)


def write_modules_of_a_user(folder: Path) -> None:
    """Write modules that leave the file `ran` when they are imported."""
    for module in ("gguf.py", "torch.py", "services/__init__.py", "shared/__init__.py"):
        (folder / module).parent.mkdir(exist_ok=True)
        (folder / module).write_text(
            f"import pathlib; pathlib.Path({str(folder / 'ran')!r}).touch()\n"
        )


@pytest.fixture
async def process() -> AsyncIterator[TrainingProcess]:
    process = TrainingProcess(0, structlog.stdlib.get_logger())
    try:
        yield process
    finally:
        await process.stop()


@pytest.mark.model
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # asyncio warns about the pipes of the killed process
async def test_candidate_scores_its_training_data_higher(
    process: TrainingProcess, bases: Path, tmp_path: Path
) -> None:
    """After the process is killed, the next request starts a new one with the base in memory."""
    base = locate_base(bases, "smollm2-135m-instruct")
    session = ModelSession(process, base, "auto")
    steps: list[Stepped] = []

    async def collect_steps(reply: object) -> None:
        if isinstance(reply, Stepped):
            steps.append(reply)

    trained = await session.train(
        ObjectiveData(SAMPLES), CONFIG, None, tmp_path / "adapter", collect_steps
    )
    assert [step.step for step in steps] == [1, 2, 3, 4] == list(range(1, trained.steps + 1))
    candidate = EvaluatedModel("candidate", tmp_path / "adapter")
    before = await session.score(EvaluatedModel("base", None), SAMPLES, 256, ignore_progress)
    after = await session.score(candidate, SAMPLES, 256, ignore_progress)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert sum(after) / 10 > sum(before) / 10 + 0.3

    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    prompts = [sample.messages for sample in SAMPLES]
    exact, fast = await session.generate(
        candidate, 256, 8, ignore_progress, probes=prompts, prompts=prompts
    )
    answers = [answer.tokens for answer in (*exact, *fast)]
    assert all(token.logprob <= 0 <= token.lead for answer in answers for token in answer)
    assert all(0 < len(answer) <= 8 for answer in answers)
    # Less exact arithmetic changes only near ties.
    firsts = [
        (exact_answer.tokens[0], fast_answer.tokens[0])
        for exact_answer, fast_answer in zip(exact, fast, strict=True)
        if exact_answer.tokens[0].lead > 0.25
    ]
    assert firsts
    assert [fast_token.text for _, fast_token in firsts] == [
        exact_token.text for exact_token, _ in firsts
    ]
    assert [fast_token.logprob for _, fast_token in firsts] == pytest.approx(
        [exact_token.logprob for exact_token, _ in firsts], abs=0.1
    )


async def test_it_imports_nothing_of_the_users(
    process: TrainingProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_modules_of_a_user(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailed, match="the base cannot be loaded"):
        await process.request(Load(base=tmp_path / "base", precision="auto"), Loaded)
    assert not (tmp_path / "ran").exists()


@pytest.mark.model
async def test_disliked_own_answers_become_less_likely(
    process: TrainingProcess, bases: Path, tmp_path: Path
) -> None:
    """Six answers of the model itself, each rated down, in a run that trains on other examples."""
    session = ModelSession(process, locate_base(bases, "smollm2-135m-instruct"), "auto")
    topics = ("the sea", "bread", "a bicycle", "the moon", "chess", "rain")
    prompts = [(Message(role="user", content=f"Say something about {topic}."),) for topic in topics]
    _, answers = await session.generate(
        EvaluatedModel("base", None), 256, 12, ignore_progress, prompts=prompts
    )
    disliked = [
        Sample(messages=prompt, answer=answer.text)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    data = ObjectiveData(SAMPLES, undesirable=disliked)
    await session.train(data, CONFIG, None, tmp_path / "adapter", ignore_progress)
    before = await session.score(
        EvaluatedModel("base", None), [*disliked, *SAMPLES], 256, ignore_progress
    )
    after = await session.score(
        EvaluatedModel("candidate", tmp_path / "adapter"),
        [*disliked, *SAMPLES],
        256,
        ignore_progress,
    )
    changes = [a - b for a, b in zip(after, before, strict=True)]
    assert all(change < 0 for change in changes[:6]), changes
    assert all(change > 0 for change in changes[6:]), changes


async def test_refused_request_does_not_end_the_process(
    process: TrainingProcess, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match="no base"):
        await process.request(Score(adapter=None, samples=(SAMPLES[0],), max_tokens=64), Scores)
    pid = process.pid
    with pytest.raises(RunFailed, match="cannot be loaded"):
        await process.request(Load(base=tmp_path / "nothing", precision="auto"), Loaded)
    assert process.pid == pid


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # asyncio warns about the pipes of the killed process
async def test_death_is_reported_and_cancelled_wait_ends_process(
    process: TrainingProcess, tmp_path: Path
) -> None:
    training = Train(
        examples=tuple(SAMPLES),
        configuration=CONFIG,
        parent=None,
        checkpoints=tmp_path,
        out=tmp_path,
        base_name="none",
    )
    waiting = asyncio.create_task(process.request(training, Loaded))
    while process.pid is None:
        await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TrainingProcessEnded):
        await waiting
    waiting = asyncio.create_task(process.request(training, Loaded))
    while process.pid is None:
        await asyncio.sleep(0.01)
    pid = process.pid
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_process_that_dies_twice_fails_the_run(tmp_path: Path) -> None:
    class Dying(TrainingProcess):
        """Dies at every request."""

        def __init__(self) -> None:
            super().__init__(0, structlog.stdlib.get_logger())
            self.requests = 0

        async def request(self, *_: object) -> None:  # type: ignore[override]  # a fake without replies
            self.requests += 1
            raise TrainingProcessEnded("killed")

    process = Dying()
    with pytest.raises(RunFailed, match="died twice") as failure:
        await ModelSession(process, LocalBase(tmp_path, "base", DIGEST), "auto").load()
    assert process.requests == 2
    assert failure.value.advice


def sample(text: str, answer: str) -> Sample:
    return Sample(messages=(Message(role="user", content=text),), answer=answer)


def train_request(folder: Path, out: str) -> Train:
    """Build a request with five steps and data for every objective."""
    return Train(
        examples=(sample("one", "a"), sample("two", "bb")),
        pairs=(PreferencePair(messages=sample("three", "").messages, answer="yes", rejected="no"),),
        undesirable=(sample("four", "bad"),),
        configuration=TrainingConfig(rank=4, alpha=8, batch_size=8, epochs=5, dropout=0.1),
        parent=None,
        checkpoints=folder / "run",
        out=folder / out,
        base_name="tiny",
    )


class TinyHandler:
    """A request handler with the tiny model as its base, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        base = LoadedBase(VOCABULARY, model := tiny_model(), tiny_model(), model, "cpu")
        monkeypatch.setattr(request_handler, "load_base", lambda *_: base)
        # Its folder has no files from which to estimate memory.
        monkeypatch.setattr(request_handler, "read_shape", lambda _: None)
        self._written = BytesIO()
        self._handler = RequestHandler(self._written)
        self._handler.handle(Load(base=folder, precision="fp32"), threading.Event())

    def request(self, train: Train, stop: threading.Event) -> list[Reply]:
        before = self._written.tell()
        self._handler.handle(train, stop)
        return [
            REPLY.validate_json(line) for line in self._written.getvalue()[before:].splitlines()
        ]


def test_stopped_training_resumes_with_identical_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It also resumes on another machine: the location of folders does not matter."""
    handler, stop = TinyHandler(monkeypatch, tmp_path), threading.Event()
    stop.set()
    replies_to_stop = handler.request(train_request(tmp_path, "cut"), stop)
    assert [reply.kind for reply in replies_to_stop] == ["stepped", "stopped"]
    assert replies_to_stop[-1] == Stopped(step=1)
    assert not (tmp_path / "cut").exists()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    resumed = handler.request(
        train_request(tmp_path, "cut").model_copy(update={"checkpoints": tmp_path / "elsewhere"}),
        threading.Event(),
    )
    assert [reply.step for reply in resumed if isinstance(reply, Stepped)] == [2, 3, 4, 5]
    whole = handler.request(train_request(tmp_path / "again", "whole"), threading.Event())
    assert [type(replies[-1]) for replies in (resumed, whole)] == [Trained, Trained]
    adapters = [
        folder / "adapter_model.safetensors"
        for folder in (tmp_path / "cut", tmp_path / "again" / "whole")
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_different_request_does_not_resume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handler, stop = TinyHandler(monkeypatch, tmp_path), threading.Event()
    stop.set()
    first = train_request(tmp_path, "out")
    handler.request(first, stop)
    for change in (
        {"examples": first.examples[:1]},
        {"undesirable": ()},
        {"configuration": TrainingConfig(rank=4, alpha=8, epochs=3)},
    ):
        assert isinstance(
            reply := handler.request(first.model_copy(update=change), threading.Event())[0], Stepped
        )
        assert reply.step == 1


def test_unwritable_checkpoint_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handler, stop = TinyHandler(monkeypatch, tmp_path), threading.Event()
    stop.set()
    (tmp_path / "run").write_text("a file where a folder should be")
    refused = handler.request(train_request(tmp_path, "out"), stop)[-1]
    assert isinstance(refused, RequestRefused)
    assert refused.advice
    (tmp_path / "run").unlink()
    assert handler.request(train_request(tmp_path, "out"), stop)[-1] == Stopped(step=1), (
        "the model is unchanged"
    )


def test_stop_applies_to_the_request_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests, with a stop after the second: it applies whether or not that request has
    started.
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
    assert ended == [0], "the process exits when its parent is gone"


def test_missing_base_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RATCHET_BASES"):
        locate_base(tmp_path, "nothing")
