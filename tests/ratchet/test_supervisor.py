"""The supervisor: combined log, restarts, and failure of the stack on a crash loop."""

import asyncio
import os
import signal
import sys

import pytest

from ratchet.local_stack.processes import ProcessSpec
from ratchet.local_stack.supervisor import ProcessFailed, Supervisor
from shared.clock import SystemClock
from shared.errors import Unavailable

SLEEPS = "import time; print('hello', flush=True); time.sleep(60)"


def spec(name: str, code: str) -> ProcessSpec:
    return ProcessSpec(
        name, (sys.executable, "-c", code), {"MINE": name}, "http://127.0.0.1:9/readyz"
    )


class Log:
    """Collects log lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write_line(self, name: str, text: str) -> None:
        self.lines.append((name, text))

    async def wait_for(self, line: tuple[str, str], times: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.lines.count(line) < times:
                await asyncio.sleep(0.05)


async def test_a_killed_process_is_restarted() -> None:
    log = Log()
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    await supervisor.start(spec("worker", SLEEPS))
    watch_task = asyncio.create_task(supervisor.watch())
    await log.wait_for(("worker", "hello"))
    first = supervisor.process_ids()["worker"]
    os.kill(first, signal.SIGKILL)
    await log.wait_for(("worker", "hello"), times=2)
    assert ("ratchet", "worker exited with signal SIGKILL; restarting it") in log.lines
    assert supervisor.process_ids()["worker"] != first
    watch_task.cancel()
    await supervisor.stop()


async def test_a_crash_loop_fails_the_stack_and_names_the_process() -> None:
    log = Log()
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock(), max_exits=2)
    await supervisor.start(spec("worker", "import sys; print('no'); sys.exit(3)"))
    with pytest.raises(ProcessFailed, match=r"worker exited 2 times .* status 3"):
        await supervisor.watch()
    await supervisor.stop()
    assert log.lines.count(("worker", "no")) == 2


async def test_processes_get_their_settings_and_stop() -> None:
    log = Log()
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    await supervisor.start(
        spec("one", "import os, time; print(os.environ['MINE'], flush=True); time.sleep(60)")
    )
    await log.wait_for(("one", "one"))
    process_id = supervisor.process_ids()["one"]
    await supervisor.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


async def test_a_process_that_is_never_ready_is_named() -> None:
    supervisor = Supervisor(dict(os.environ), Log().write_line, SystemClock())
    with pytest.raises(Unavailable, match="worker"):
        await supervisor.wait_ready([spec("worker", SLEEPS)], seconds=0.3)
