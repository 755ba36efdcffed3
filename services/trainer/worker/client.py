"""Client of the training process: one process, started on demand and kept warm, on this machine or
on a Ray cluster.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.trainer.errors import RunFailed, RunInterrupted, TrainingProcessEnded
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
from shared.python_command import module_command

R = TypeVar("R", bound=FrozenModel)

OnProgress = Callable[[Stepped | EvaluationProgress], Awaitable[None]]

LINE_LIMIT = 256 << 20
"""Maximum bytes of one reply; a reply holds up to a few hundred scores or answers."""


OPENMP_SPIN = {"GOMP_SPINCOUNT": "20000"}
"""Torch's threads spin for a few microseconds when they wait for each other, then sleep. By default
they spin long enough to take the cores from serving; sleeping immediately costs up to a third of
the training speed.
"""


async def ignore_progress(_: Stepped | EvaluationProgress) -> None:
    """Discard progress."""


@dataclass(frozen=True)
class LaunchCommand:
    """Command that starts a training process: a module of this package with its options, followed
    by those of the training process.

    After its standard input has closed, the process may take `shutdown_seconds` to exit.
    """

    module: str
    options: tuple[str, ...] = ()
    shutdown_seconds: float = 0.0


LOCAL = LaunchCommand("services.trainer.worker.training_process")


def ray_launch(
    address: str, gpus: float, threads: int, work: Path, bases: Iterable[Path]
) -> LaunchCommand:
    """Return the launch command for a Ray cluster. The cluster must mount the folders `work` and
    `bases` under the same paths.

    The process requires one core of the cluster per thread, or one core if `threads` is 0.
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
    """Sends one request at a time to the training process.

    `threads` is the number of cores to use, 0 for all; `memory_limit` is the maximum memory for
    planning, in bytes, None for all. Only the first process receives the failpoints: each of them
    fires once.
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
        self._stepped: Stepped | None = None
        self._start_count = 0

    async def request(
        self, request: Request, expected: type[R], on_progress: OnProgress = ignore_progress
    ) -> R:
        """Send a request and return the reply that ends it.

        Raises RunFailed if the process refuses it, TrainingProcessEnded if the process dies,
        RunInterrupted if training was stopped; Unavailable if the cluster cannot place a process
        now, Misconfigured if it never can.

        If the wait is cancelled, the process is ended as well: its pending replies have no
        receiver.
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
            self._training, self._stepped = training, None
            # A line without a newline was cut off by the death of the process.
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
                if isinstance(reply, Stepped):
                    self._stepped = reply
                if isinstance(reply, Stepped | EvaluationProgress):
                    await on_progress(reply)
            raise _process_ended(await process.wait())
        except (RunFailed, RunInterrupted):
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            await self.stop()
            raise TrainingProcessEnded("the training process ended") from error
        except BaseException:
            await self.stop()
            raise
        finally:
            self._training = None
            if training is not None and not training.done():
                training.set_result(stopped)

    async def interrupt(self) -> bool:
        """Stop the current training after its current step, with a checkpoint, and wait for its
        end.

        Returns True if that stopped the training; False if nothing was being trained, or if
        training completed first.
        """
        training, process = self._training, self._process
        if training is None or process is None or process.stdin is None:
            return False
        self._log.info(_saving(self._stepped))
        try:
            process.stdin.write(STOP + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        # Cancelling the wait must not cancel the training.
        return await asyncio.shield(training)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *module_command(
                    self._launch.module,
                    *self._launch.options,
                    "--threads",
                    str(self._threads),
                    *self._memory,
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
                env=os.environ  # noqa: TID251 (inherited)
                | OPENMP_SPIN
                | ({"RATCHET_FAILPOINTS": ""} if self._start_count else {}),
                start_new_session=True,  # only the parent handles Ctrl-C, and ends this process
            )
            self._start_count += 1
            self._log.info("training process started", pid=self._process.pid)
        return self._process

    @property
    def pid(self) -> int | None:
        """Process id of the training process, None if it is not running."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    async def stop(self) -> None:
        """Kill the process: all of its state can be recreated."""
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


def _saving(stepped: Stepped | None) -> str:
    """Describe the end of a training whose last step so far is `stepped`."""
    if stepped is None:
        return "saving after the running step"
    total = stepped.total_steps
    return f"saving after step {min(stepped.step + 1, total)} of {total}"


def _process_ended(status: int) -> TrainingProcessEnded:
    """Translate an exit status. The kernel's OOM killer sends SIGKILL and reports it only in its
    own log.
    """
    if status == OUT_OF_MEMORY:
        return TrainingProcessEnded("the training process ran out of memory", out_of_memory=True)
    if status == WORKER_LOST:
        return TrainingProcessEnded("the training process was lost with its Ray worker")
    if status == -signal.SIGKILL:
        return TrainingProcessEnded(
            "the training process was killed, probably by the kernel's OOM killer",
            out_of_memory=True,
        )
    return TrainingProcessEnded(f"the training process ended with code {status}")
