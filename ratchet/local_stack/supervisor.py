"""Starts, restarts and stops the processes of a stack, in reverse order of their start, and writes
their output to one log.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx

from ratchet.local_stack.processes import ProcessSpec
from shared.clock import Clock
from shared.errors import RatchetError, Unavailable

REPORT_SECONDS = 3.0
"""Time after which a stop reports the process that it waits for."""

WriteLine = Callable[[str, str], None]
"""Called with the name of a process and a line of its log."""


class ProcessFailed(RatchetError):
    """A process of the stack exits repeatedly."""


@dataclass
class _Running:
    spec: ProcessSpec
    process: asyncio.subprocess.Process
    reader: asyncio.Task[None]
    starts: list[float] = field(default_factory=list)
    restart_at: float | None = None
    """When to start it again, None before its exit has been reported."""


class Supervisor:
    """Restarts processes that exit.

    `max_exits` exits of a process before it was ready for the first time fail the stack: its
    settings are probably wrong, and a person is watching. Later, as many exits within
    `window_seconds` only delay its next start, so that the other processes keep serving.
    """

    def __init__(
        self,
        environment: dict[str, str],
        write_line: WriteLine,
        clock: Clock,
        max_exits: int = 5,
        window_seconds: float = 60.0,
    ) -> None:
        self._environment = environment
        self._write_line = write_line
        self._clock = clock
        self._max_exits = max_exits
        self._window_seconds = window_seconds
        self._running: dict[str, _Running] = {}
        self._output_at: dict[str, float] = {}
        self._once_ready: set[str] = set()
        self._stopping = False

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each process, by name."""
        return {name: running.process.pid for name, running in self._running.items()}

    async def start(self, spec: ProcessSpec) -> None:
        previous = self._running.get(spec.name)
        starts = previous.starts if previous else []
        if spec.name in self._once_ready:
            recent = self._clock.monotonic() - self._window_seconds
            starts = [at for at in starts if at > recent]
        process = await asyncio.create_subprocess_exec(
            *spec.command,
            env=self._environment | spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            # Ctrl-C reaches the supervisor only, which then stops everything in order.
            start_new_session=True,
        )
        reader = asyncio.create_task(self._read(spec.name, process))
        self._running[spec.name] = _Running(
            spec, process, reader, [*starts, self._clock.monotonic()]
        )

    async def wait_ready(
        self, specs: Iterable[ProcessSpec], seconds: float = 180.0, *, patient: bool = False
    ) -> None:
        """Wait until all processes are ready, however long they take while they write to the log.

        Raises Unavailable naming those that are not ready and have written nothing for `seconds`.
        With `patient` this is a line in the log instead, and the wait continues.
        """
        waiting = {spec.name: spec.ready_url for spec in specs}
        active_at = dict.fromkeys(waiting, self._clock.monotonic())
        async with httpx.AsyncClient(timeout=2.0) as client:
            while waiting:
                for name, ready_url in list(waiting.items()):
                    if await _is_ready(client, ready_url):
                        del waiting[name]
                        self._once_ready.add(name)
                        self._write_line("ratchet", f"{name} is ready")
                now = self._clock.monotonic()
                active_at = {
                    name: max(active_at[name], self._output_at.get(name, 0.0)) for name in waiting
                }
                if silent := [name for name, at in active_at.items() if now - at > seconds]:
                    report = f"{', '.join(silent)}: not ready, and no output for {seconds:g} s"
                    if not patient:
                        raise Unavailable(f"{report}; see ratchet.log in the state folder")
                    self._write_line(
                        "ratchet", f"{report}; still waiting, the other processes keep running"
                    )
                    active_at |= dict.fromkeys(silent, now)
                await asyncio.sleep(0.2 if waiting else 0)

    async def watch(self) -> None:
        """Restart processes that exit, until cancelled. Raises ProcessFailed for a crash loop of a
        process that has never been ready.
        """
        while not self._stopping:
            for running in list(self._running.values()):
                if (code := running.process.returncode) is None:
                    continue
                if running.restart_at is None:
                    await running.reader
                    running.restart_at = self._restart_time(running, _exit_text(code))
                if self._clock.monotonic() >= running.restart_at:
                    await self.start(running.spec)
            await asyncio.sleep(0.3)

    def _restart_time(self, running: _Running, exit_text: str) -> float:
        """Report the exit of a process; return when to start it again. Raises ProcessFailed."""
        name, now = running.spec.name, self._clock.monotonic()
        if len(running.starts) < self._max_exits:
            self._write_line("ratchet", f"{name} exited with {exit_text}; restarting it")
            return now
        exits = f"{name} exited {self._max_exits} times"
        if name not in self._once_ready:
            raise ProcessFailed(
                f"{exits} before it was ready, last with {exit_text}; see its log above"
            )
        self._write_line(
            "ratchet",
            f"{exits} within {self._window_seconds:g} s, last with {exit_text}; it starts again in "
            f"{self._window_seconds:g} s, the other processes keep running",
        )
        return now + self._window_seconds

    async def stop(self) -> None:
        """Terminate all processes, the last started first; kill those that do not exit within their
        `stop_seconds`. A cancellation meanwhile kills the others at once, and has no other effect.
        """
        self._stopping = True
        for running in reversed(self._running.values()):
            if running.process.returncode is None:
                running.process.terminate()
        try:
            for running in reversed(self._running.values()):
                await self._wait_for_exit(running)
        except asyncio.CancelledError:
            for running in self._running.values():
                if running.process.returncode is None:
                    self._write_line("ratchet", f"killing {running.spec.name}")
                    running.process.kill()
        for running in self._running.values():
            await running.process.wait()
            await running.reader

    async def _wait_for_exit(self, running: _Running) -> None:
        """Wait until a terminated process has exited; kill it after its time limit."""
        name, seconds = running.spec.name, running.spec.stop_seconds
        exited = asyncio.ensure_future(running.process.wait())
        try:
            await asyncio.wait((exited,), timeout=min(REPORT_SECONDS, seconds))
            if not exited.done() and seconds > REPORT_SECONDS:
                self._write_line(
                    "ratchet",
                    f"waiting for {name}, at most {seconds:g} s; press Ctrl-C to kill it instead",
                )
                await asyncio.wait((exited,), timeout=seconds - REPORT_SECONDS)
            if not exited.done():
                self._write_line("ratchet", f"{name} did not exit within {seconds:g} s; killing it")
                running.process.kill()
                await exited
        finally:
            exited.cancel()

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while raw := await process.stdout.readline():
            self._output_at[name] = self._clock.monotonic()
            self._write_line(name, raw.decode(errors="replace").rstrip())


async def _is_ready(client: httpx.AsyncClient, ready_url: str) -> bool:
    try:
        return (await client.get(ready_url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _exit_text(code: int) -> str:
    return f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
