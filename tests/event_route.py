"""The route of one event: functions between `feedback.received` and the served version.

The fiftieth correction of a batch runs through the handlers of the four services on their in-memory
twins, with a real training process's request handler on a tiny model. A function of `services` or
`shared` is on the route when

- it is on the call stack while the event or its result is passed to the bus, the table of entries,
  the object store, the registry's outbox, the training process or a deploy target; or
- it is public, and a function of the first kind calls it directly.

Ports and adapters that know nothing of the event (`PORTS`), and the work behind a twin's port, are
not on the route.

Functions are listed in the order of their first call. A file change is a neighbour in another file.

Work in worker threads runs in the event loop's thread here: its functions would have call stacks of
their own and not be seen as called by the function that starts it.

    python -m tests.event_route            the list, then its counts
    python -m tests.event_route --json     only the counts
"""

import asyncio
import json
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import structlog

from services.feedback.app import FeedbackHandler
from services.feedback.scoring import Policies
from services.trainer.machine.bases import LocalBase
from services.trainer.protocol import REPLY, EvaluationProgress, Request, Stepped
from services.trainer.worker.client import OnProgress, ignore_progress
from services.trainer.worker.request_handler import RequestHandler
from shared.clock import ManualClock
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.events import VersionRegistered
from shared.messaging.bus import Record
from shared.messaging.codec import encode
from shared.messaging.topics import (
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
)
from tests.dead_letters.test_malformed_input import BufferedMemoryBus
from tests.registry.deploy.test_deployment import Stage
from tests.support.registry_events import DatabaseFixture, checkpoint
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START, model_file, state_of
from tests.support.tickets import DIGEST, NOW
from tests.tracing.test_flow import DatasetRun, received
from tests.trainer.test_app import QuickChild, World, is_owner
from tests.trainer.tiny import save_tiny

ROOT = Path(__file__).parents[1]
PORTS = (
    "shared/clock.py",
    "shared/failpoints.py",
    "shared/identity.py",
    "shared/messaging/bus.py MemoryBus",
    "shared/observability/",
    "shared/service/",
    "shared/storage/keys.py",
    "shared/storage/object_store.py",
    "services/registry/store/database.py",
    "services/registry/store/leases.py",
    "services/registry/store/tables.py",
)
HAND_OVERS = frozenset(
    {"send", "send_nowait", "put", "put_batch", "enqueue", "push", "switch", "verify"}
)
PACKAGES = ("services", "shared", "tests")
LOG = structlog.stdlib.get_logger("ratchet.test")

T = TypeVar("T")
Function = tuple[str, str]
"""File and qualified name."""


@dataclass
class Tracer:
    """Records the functions that are called while `active`, with their callers."""

    active: bool = False
    order: list[Function] = field(default_factory=list)
    callers: defaultdict[Function, set[Function]] = field(default_factory=lambda: defaultdict(set))
    handing_on: set[Function] = field(default_factory=set)
    _names: dict[CodeType, Function | None] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.active or event != "call":
            return
        function = self._name(frame.f_code)
        if function is None:
            return
        stack = self._stack(frame)
        if any(_is_fake_port(caller) for caller in stack[1:]):
            return
        stack = [name for name in stack if _is_product(name)]
        if _is_product(function) and function not in self.callers:
            self.order.append(function)
        for called, caller in pairwise(stack):
            self.callers[called].add(caller)
        if stack and stack[0] not in self.callers:
            self.callers[stack[0]] = set()
        if frame.f_code.co_name in HAND_OVERS:
            self.handing_on.update(stack)

    async def record(self, work: Awaitable[T]) -> T:
        self.active = True
        try:
            return await work
        finally:
            self.active = False

    @property
    def route(self) -> list[Function]:
        return [
            function
            for function in self.order
            if not " ".join(function).startswith(PORTS)
            and (
                function in self.handing_on
                or (_is_public(function) and self.callers[function] & self.handing_on)
            )
        ]

    def _stack(self, frame: FrameType | None) -> list[Function]:
        stack = []
        while frame is not None:
            if (function := self._name(frame.f_code)) is not None:
                stack.append(function)
            frame = frame.f_back
        return stack

    def _name(self, code: CodeType) -> Function | None:
        if code not in self._names:
            path = Path(code.co_filename)
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
            inside = inside and not code.co_name.startswith("<")
            self._names[code] = (str(path.relative_to(ROOT)), code.co_qualname) if inside else None
        return self._names[code]


class InProcessTraining(QuickChild):
    """A training process whose request handler runs in this process, on real weights."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self._replies = BytesIO()
        self._handler = RequestHandler(self._replies)

    async def request(
        self,
        request: Request,
        expected: type[Any],
        on_progress: OnProgress = ignore_progress,
    ) -> Any:
        self._replies.seek(0)
        self._replies.truncate()
        self._handler.handle(request, threading.Event())
        for line in self._replies.getvalue().splitlines():
            reply = REPLY.validate_json(line)
            if isinstance(reply, expected):
                return reply
            assert isinstance(reply, Stepped | EvaluationProgress)
            await on_progress(reply)
        raise AssertionError(self._replies.getvalue())


async def trace(tracer: Tracer, folder: Path) -> None:
    """Run one batch through the four services; its last event is recorded."""
    scored = await _score(tracer)
    batch, run = await _close_batch(tracer, scored)
    await _train(tracer, folder, batch, run)
    await _register_and_deploy(tracer, folder)


async def _score(tracer: Tracer) -> list[Record]:
    bus = BufferedMemoryBus()
    feedback = FeedbackHandler(
        Policies(Models({"m": model_file("m")}, Path())),
        bus,
        runtime_of("feedback", ManualClock(START), log=LOG),
    )
    *first, last = [
        received(
            number,
            output=f"answer number {number} {'abcdefgh'[number % 8] * 5}",
            feedback_type="correction",
            corrected_output=f"right answer {number}",
        )
        for number in range(50)
    ]

    async def handle(record: Record) -> None:
        await (await feedback.handle(record))

    for record in first:
        await handle(record)
    await tracer.record(handle(last))
    return bus.topics[FEEDBACK_SCORED]


async def _close_batch(tracer: Tracer, scored: list[Record]) -> tuple[Record, DatasetRun]:
    run = DatasetRun(held_out_share=0)
    dataset = run.dataset()
    await dataset.recover(lambda: state_of(run.table))

    async def handle(record: Record) -> None:
        for delivery in await dataset.handle(record, START):
            await delivery

    for record in scored[:-1]:
        await handle(record)
    await tracer.record(handle(scored[-1]))
    (batch,) = run.bus.topics[TRAINING_BATCHES]
    return batch, run


async def _train(tracer: Tracer, folder: Path, batch: Record, run: DatasetRun) -> None:
    save_tiny(folder / "base")
    (folder / "work").mkdir()
    world = World(folder / "work")
    world.store, world.child = run.store, InProcessTraining()
    training = {"batch_size": 8, "epochs": 1, "replay": 0, "max_tokens": 128}
    model = ModelFile.model_validate(
        {
            "model": "m",
            "base": {"training": "base", "serving": "base.gguf"},
            "lanes": {"adaptive": {"rehearsal": "none", "training": training}},
        }
    )
    start = {"event_id": "0", "occurred_at": NOW, "model": "m", "version": "v0", "number": 0}
    await world.publish(
        VersionRegistered.model_validate(start | {"answer": "promoted", "champion": "v0"})
    )
    trainer = world.trainer(model)
    trainer._bases = {"m": LocalBase(folder / "base", "base", DIGEST)}
    await tracer.record(trainer.handle(batch, is_owner))


async def _register_and_deploy(tracer: Tracer, folder: Path) -> None:
    database = DatabaseFixture(f"sqlite:///{folder}/registry.db")
    try:
        stage = Stage(database, folder)
        await stage.reconcile()
        value, headers = encode(checkpoint("r1", database.champion), "trainer")
        record = Record(TRAINING_CHECKPOINTS, 0, 0, b"support", value, tuple(headers))
        await tracer.record(stage.registry.handle(record))
        await tracer.record(stage.reconcile())
    finally:
        database.close()


def _is_fake_port(function: Function) -> bool:
    """True for a twin's method that takes the event over."""
    return not _is_product(function) and function[1].rpartition(".")[2] in HAND_OVERS


def _is_product(function: Function) -> bool:
    return function[0].startswith(("services/", "shared/"))


def _is_public(function: Function) -> bool:
    return not function[1].rpartition(".")[2].startswith("_")


def counts_of(route: list[Function]) -> dict[str, int]:
    """Count functions, files and changes of file along a route."""
    changes = sum(before[0] != after[0] for before, after in pairwise(route))
    return {
        "functions": len(route),
        "files": len({path for path, _ in route}),
        "file_changes": changes,
    }


async def call_directly(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Replace `asyncio.to_thread`, so that the caller is on the call stack."""
    return function(*args, **kwargs)


def main() -> None:
    tracer = Tracer()
    asyncio.to_thread = call_directly
    with tempfile.TemporaryDirectory() as folder:
        threading.setprofile(tracer)
        sys.setprofile(tracer)
        try:
            asyncio.run(trace(tracer, Path(folder)))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if "--json" not in sys.argv[1:]:
        for path, name in tracer.route:
            print(path, name)
    print(json.dumps(counts_of(tracer.route)))


if __name__ == "__main__":
    main()
