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

from services.trainer.errors import ChildEnded, RunFailed, RunInterrupted
from services.trainer.protocol import (
    REPLY,
    STOP,
    Counted,
    Refused,
    Request,
    Stepped,
    Stopped,
    Train,
    Unplaced,
)
from services.trainer.worker.resource_exhaustion import LOST, OUT_OF_MEMORY
from shared.errors import Misconfigured, Unavailable
from shared.events import Value
from shared.logs import Log

R = TypeVar("R", bound=Value)

Heard = Callable[[Stepped | Counted], Awaitable[None]]

LINE_LIMIT = 256 << 20
"""Bytes of one reply at most; a reply holds up to some hundred scores or answers."""


SPIN_BRIEFLY = {"GOMP_SPINCOUNT": "20000"}
"""Torch's threads spin for some microseconds when they wait for each other, then sleep. Left to
themselves they spin long enough to take the cores from serving; sleeping at once costs up to a
third of the training speed.
"""


async def ignore(_: Stepped | Counted) -> None:
    """Progress that nobody waits for."""


@dataclass(frozen=True)
class Launch:
    """How a child is started: a module of ours with its options, which the child's own follow. Its
    end may take `leaving_seconds` once its standard input has closed.
    """

    module: str
    options: tuple[str, ...] = ()
    leaving_seconds: float = 0.0


BESIDE = Launch("services.trainer.worker.child")


def on_ray(address: str, gpus: float, threads: int, work: Path, bases: Iterable[Path]) -> Launch:
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
    return Launch("services.trainer.worker.ray_relay", tuple(options), leaving_seconds=10.0)


class ChildProcess:
    """Asks the child one thing at a time. `threads` are the cores that it uses, 0 for all;
    `memory_limit` is the most that it may plan to take, in bytes, None for all that there is. Only
    the first child is told of failpoints: each of them happens once.
    """

    def __init__(
        self, threads: int, log: Log, memory_limit: int | None = None, launch: Launch = BESIDE
    ) -> None:
        self._launch = launch
        self._threads = threads
        self._memory = () if memory_limit is None else ("--memory-limit", str(memory_limit))
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._training: asyncio.Future[bool] | None = None
        self._started = 0

    async def ask(self, request: Request, expected: type[R], heard: Heard = ignore) -> R:
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
                if isinstance(reply, Refused):
                    raise RunFailed(reply.reason, reply.advice)
                if isinstance(reply, Unplaced):
                    raise (Misconfigured if reply.lasting else Unavailable)(reply.reason)
                if isinstance(reply, Stopped):
                    stopped = True
                    raise RunInterrupted(reply.step)
                if isinstance(reply, expected):
                    return reply
                if isinstance(reply, Stepped | Counted):
                    await heard(reply)
            raise _end_of(await process.wait())
        except (RunFailed, RunInterrupted):
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            await self.stop()
            raise ChildEnded("the training process ended") from error
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
                | SPIN_BRIEFLY
                | ({"RATCHET_FAILPOINTS": ""} if self._started else {}),
                start_new_session=True,  # a Ctrl-C is for the parent, which ends the child itself
            )
            self._started += 1
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
        if process.returncode is None and self._launch.leaving_seconds:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._launch.leaving_seconds)
        if process.returncode is None:
            process.kill()
        await process.wait()


def _end_of(status: int) -> ChildEnded:
    """What the end of a child means. A kernel that runs out of memory kills, and says so in its own
    log only.
    """
    if status == OUT_OF_MEMORY:
        return ChildEnded("the training process ran out of memory", short_of_memory=True)
    if status == LOST:
        return ChildEnded("the training process is lost with the Ray worker that held it")
    if status == -signal.SIGKILL:
        return ChildEnded(
            "the training process was killed, as a kernel does that has no memory left",
            short_of_memory=True,
        )
    return ChildEnded(f"the training process ended with code {status}")
