"""The parent's side of the training process: one child, started when it is needed and kept warm,
beside it or on a Ray cluster.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.trainer.errors import ChildProcessEnded, RunFailed, RunInterrupted
from services.trainer.protocol import (
    REPLY,
    STOP,
    EvaluationProgress,
    NoWorker,
    Request,
    RequestRefused,
    Stepped,
    Stopped,
    Train,
)
from services.trainer.worker.resource_exhaustion import OUT_OF_MEMORY, WORKER_LOST
from shared.errors import Misconfigured, Unavailable
from shared.events import FrozenModel
from shared.logs import Log

R = TypeVar("R", bound=FrozenModel)

OnProgress = Callable[[Stepped | EvaluationProgress], Awaitable[None]]

LINE_LIMIT = 256 << 20
"""Bytes of one reply at most; a reply holds up to some hundred scores or answers."""


OPENMP_SPIN = {"GOMP_SPINCOUNT": "20000"}
"""Torch's threads spin for some microseconds when they wait for each other, then sleep. Left to
themselves they spin long enough to take the cores from serving; sleeping at once costs up to a
third of the training speed.
"""


async def ignore_progress(_: Stepped | EvaluationProgress) -> None:
    """Progress that nobody waits for."""


@dataclass(frozen=True)
class LaunchCommand:
    """How a child is started: a module of ours with its options, which the child's own follow. Its
    end may take `leaving_seconds` once its standard input has closed.
    """

    module: str
    options: tuple[str, ...] = ()
    shutdown_seconds: float = 0.0


LOCAL = LaunchCommand("services.trainer.worker.training_process")


def ray_launch(
    address: str, gpus: float, threads: int, work: Path, bases: Iterable[Path]
) -> LaunchCommand:
    """A child on a Ray cluster, which has to see the folders `work` and `bases` under these very
    paths. It takes a core of the cluster for each thread, one where `threads` is 0.
    """
    options = [
        "--address",
        address,
        "--gpus",
        str(gpus),
        "--cores",
        str(max(1, threads)),
        "--work",
        str(work),
    ]
    for base in bases:
        options += ["--base", str(base)]
    return LaunchCommand("services.trainer.worker.ray_relay", tuple(options), shutdown_seconds=10.0)


class TrainingProcess:
    """Asks the child one thing at a time. `threads` are the cores that it uses, 0 for all;
    `memory_limit` is the most that it may plan to take, in bytes, None for all that there is. Only
    the first child is told of failpoints: each of them happens once.
    """

    def __init__(
        self, threads: int, log: Log, memory_limit: int | None = None, launch: LaunchCommand = LOCAL
    ) -> None:
        self._launch = launch
        self._threads = threads
        self._memory = () if memory_limit is None else ("--memory-limit", str(memory_limit))
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._training: asyncio.Future[bool] | None = None
        self._start_count = 0

    async def request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        """The reply that ends a request. Raises RunFailed when the child refuses it, ChildEnded
        when the child dies, RunInterrupted when it was told to stop; Unavailable when the cluster
        has no place for a child now, Misconfigured when it will not have one.

        When the wait for it is broken off, the child is ended with it: what it would still say
        belongs to nobody.
        """
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        training = (
            asyncio.get_running_loop().create_future() if isinstance(request, Train) else None
        )
        stopped = False
        try:
            process.stdin.write(request.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            self._training = training
            # A line without its end is what a child had begun to say when it died.
            while (line := await process.stdout.readline()).endswith(b"\n"):
                reply = REPLY.validate_json(line)
                if isinstance(reply, RequestRefused):
                    raise RunFailed(reply.reason, reply.advice)
                if isinstance(reply, NoWorker):
                    raise (Misconfigured if reply.permanent else Unavailable)(reply.reason)
                if isinstance(reply, Stopped):
                    stopped = True
                    raise RunInterrupted(reply.step)
                if isinstance(reply, expected):
                    return reply
                if isinstance(reply, Stepped | EvaluationProgress):
                    await on_progress(reply)
            raise _process_ended(await process.wait())
        except (RunFailed, RunInterrupted):
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            await self.stop()
            raise ChildProcessEnded("the training process ended") from error
        except BaseException:
            await self.stop()
            raise
        finally:
            self._training = None
            if training is not None and not training.done():
                training.set_result(stopped)

    async def interrupt(self) -> bool:
        """Have the training in hand end after its present step, with a checkpoint; returns when it
        has. Whether it was cut off by that: not when nothing was being trained, and not when it
        came to its end before it heard of it.
        """
        training, process = self._training, self._process
        if training is None or process is None or process.stdin is None:
            return False
        try:
            process.stdin.write(STOP + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        # Whoever waits for too long lets go of the wait, not of the training.
        return await asyncio.shield(training)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(
                    "-m",
                    self._launch.module,
                    *self._launch.options,
                    "--threads",
                    str(self._threads),
                    *self._memory,
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
                env=os.environ  # noqa: TID251 (handed on)
                | OPENMP_SPIN
                | ({"RATCHET_FAILPOINTS": ""} if self._start_count else {}),
                start_new_session=True,  # a Ctrl-C is for the parent, which ends the child itself
            )
            self._start_count += 1
            self._log.info("training process started", pid=self._process.pid)
        return self._process

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    async def stop(self) -> None:
        """End the child at once: all that it holds can be made again."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None and self._launch.shutdown_seconds:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._launch.shutdown_seconds)
        if process.returncode is None:
            process.kill()
        await process.wait()


def _process_ended(status: int) -> ChildProcessEnded:
    """What the end of a child means. A kernel that runs out of memory kills, and says so in its own
    log only.
    """
    if status == OUT_OF_MEMORY:
        return ChildProcessEnded("the training process ran out of memory", out_of_memory=True)
    if status == WORKER_LOST:
        return ChildProcessEnded("the training process is lost with the Ray worker that held it")
    if status == -signal.SIGKILL:
        return ChildProcessEnded(
            "the training process was killed, as a kernel does that has no memory left",
            out_of_memory=True,
        )
    return ChildProcessEnded(f"the training process ended with code {status}")
