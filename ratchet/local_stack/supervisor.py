"""Keeps the processes of a stack running, with one readable log, and stops them in the reverse
order of their start.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx

from ratchet.local_stack.processes import ProcessSpec
from shared.clock import Clock
from shared.errors import RatchetError, Unavailable

WriteLine = Callable[[str, str], None]
"""Takes the name of a process and a line of its log."""


class ProcessFailed(RatchetError):
    """A process of the stack ends again and again."""


@dataclass
class _Running:
    spec: ProcessSpec
    process: asyncio.subprocess.Process
    reader: asyncio.Task[None]
    starts: list[float] = field(default_factory=list)


class Supervisor:
    """Starts processes and starts again what dies; a process that dies `most` times within
    `seconds` ends the stack instead.
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
        self._line = write_line
        self._clock = clock
        self._most = max_exits
        self._seconds = window_seconds
        self._running: dict[str, _Running] = {}
        self._stopping = False

    def process_ids(self) -> dict[str, int]:
        """The process id of each process, by name."""
        return {name: running.process.pid for name, running in self._running.items()}

    async def start(self, spec: ProcessSpec) -> None:
        before = self._running.get(spec.name)
        starts = [
            at
            for at in (before.starts if before else [])
            if at > self._clock.monotonic() - self._seconds
        ]
        process = await asyncio.create_subprocess_exec(
            *spec.command,
            env=self._environment | spec.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            # Ctrl-C reaches the supervisor alone, which then stops everything in order
            start_new_session=True,
        )
        reader = asyncio.create_task(self._read(spec.name, process))
        self._running[spec.name] = _Running(
            spec, process, reader, [*starts, self._clock.monotonic()]
        )

    async def wait_ready(self, specs: Iterable[ProcessSpec], seconds: float = 180.0) -> None:
        """Return when all say that they are ready. Raises Unavailable naming those that do not
        within `seconds`.
        """
        waiting = {spec.name: spec.ready_url for spec in specs}
        end = self._clock.monotonic() + seconds
        async with httpx.AsyncClient(timeout=2.0) as client:
            while waiting:
                for name, ready_url in list(waiting.items()):
                    if await _answers(client, ready_url):
                        del waiting[name]
                        self._line("ratchet", f"{name} is ready")
                if waiting and self._clock.monotonic() > end:
                    who = ", ".join(waiting)
                    raise Unavailable(
                        f"{who}: not ready after {seconds:g} s; ratchet.log in the state "
                        "folder says how far it came"
                    )
                await asyncio.sleep(0.2 if waiting else 0)

    async def watch(self) -> None:
        """Start again what dies, until cancelled. Raises ProcessFailed when one will not stay up."""
        while not self._stopping:
            for name, running in list(self._running.items()):
                code = running.process.returncode
                if code is None:
                    continue
                await running.reader
                if len(running.starts) >= self._most:
                    raise ProcessFailed(
                        f"{name} ended {self._most} times within {self._seconds:g} s, last "
                        f"with {_say(code)}; see its log above"
                    )
                self._line("ratchet", f"{name} ended with {_say(code)}; starting it again")
                await self.start(running.spec)
            await asyncio.sleep(0.3)

    async def stop(self, seconds: float = 20.0) -> None:
        """Ask all to end, the last started first, and end what does not within `seconds`."""
        self._stopping = True
        for running in reversed(self._running.values()):
            if running.process.returncode is None:
                running.process.terminate()
        for name, running in reversed(self._running.items()):
            try:
                await asyncio.wait_for(running.process.wait(), seconds)
            except TimeoutError:
                self._line("ratchet", f"{name} did not end within {seconds:g} s; killing it")
                running.process.kill()
                await running.process.wait()
            await running.reader

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while raw := await process.stdout.readline():
            self._line(name, raw.decode(errors="replace").rstrip())


async def _answers(client: httpx.AsyncClient, ready_url: str) -> bool:
    try:
        return (await client.get(ready_url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _say(code: int) -> str:
    return f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
