"""The supervisor: combined log, restarts, and failure of the stack on a crash loop."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from ratchet.local_stack.ports import LOOPBACK, free_port
from ratchet.local_stack.processes import ProcessSpec, local_url
from ratchet.local_stack.supervisor import ProcessFailed, Supervisor
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.http.health_server import serve_health
from shared.observability.health import Health

SLEEPS = "import time; print('hello', flush=True); time.sleep(60)"


def spec(name: str, code: str) -> ProcessSpec:
    return ProcessSpec(
        name, (sys.executable, "-c", code), {"MINE": name}, "http://127.0.0.1:9/readyz"
    )


@contextmanager
def served(health: Health) -> Iterator[str]:
    """Serve the readiness of a process; yields its URL."""
    port = free_port()
    stop = serve_health(health, CollectorRegistry(), LOOPBACK, port)
    try:
        yield local_url(port, "/readyz")
    finally:
        stop()


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


async def test_a_process_that_writes_its_log_is_waited_for() -> None:
    """It becomes ready after twice the time limit."""
    log, health = Log(), Health(SystemClock())
    busy = "import time\nwhile True: print('12 of 42', flush=True); time.sleep(0.1)"
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    with served(health) as url:
        slow = replace(spec("worker", busy), ready_url=url)
        await supervisor.start(slow)
        await log.wait_for(("worker", "12 of 42"))
        waiting = asyncio.create_task(supervisor.wait_ready([slow], seconds=3))
        await log.wait_for(("worker", "12 of 42"), times=60)
        assert not waiting.done()
        health.mark_ready()
        await waiting
    assert ("ratchet", "worker is ready") in log.lines
    await supervisor.stop()


async def test_a_silent_process_is_named_and_waited_for() -> None:
    log, health = Log(), Health(SystemClock())
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    with served(health) as url:
        silent = replace(spec("worker", SLEEPS), ready_url=url)
        waiting = asyncio.create_task(supervisor.wait_ready([silent], seconds=0.2, patient=True))
        line = (
            "worker: not ready, and no output for 0.2 s; still waiting, the other processes keep "
            "running"
        )
        await log.wait_for(("ratchet", line), times=2)
        health.mark_ready()
        await waiting


async def test_a_crash_loop_after_readiness_stops_nothing() -> None:
    """The process dies whenever it is started; its next start is only delayed."""
    log, health = Log(), Health(SystemClock())
    health.mark_ready()
    supervisor = Supervisor(
        dict(os.environ), log.write_line, SystemClock(), max_exits=2, window_seconds=5
    )
    with served(health) as url:
        dying = replace(spec("worker", "print('no')"), ready_url=url)
        await supervisor.wait_ready([dying])
        await supervisor.start(dying)
        await supervisor.start(spec("other", SLEEPS))
        watch_task = asyncio.create_task(supervisor.watch())
        delayed = (
            "worker exited 2 times within 5 s, last with status 0; it starts again in 5 s, the "
            "other processes keep running"
        )
        await log.wait_for(("ratchet", delayed))
        await log.wait_for(("worker", "no"), times=3)
    assert not watch_task.done()
    assert log.lines.count(("other", "hello")) == 1
    watch_task.cancel()
    await supervisor.stop()


SAVES = """
import signal, time
def save(*_):
    time.sleep(1.5); print('saved after step 8 of 10', flush=True); raise SystemExit
signal.signal(signal.SIGTERM, save); print('hello', flush=True); time.sleep(60)
"""
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('hello', flush=True); time.sleep(60)"
)


async def test_stop_waits_for_a_process_that_saves() -> None:
    """Each process has a time limit of its own."""
    log = Log()
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    await supervisor.start(replace(spec("trainer", SAVES), stop_seconds=60))
    await supervisor.start(replace(spec("stuck", IGNORES), stop_seconds=0.2))
    for name in ("trainer", "stuck"):
        await log.wait_for((name, "hello"))
    await supervisor.stop()
    assert ("trainer", "saved after step 8 of 10") in log.lines
    assert ("ratchet", "stuck did not exit within 0.2 s; killing it") in log.lines


async def test_a_cancelled_stop_kills_what_still_runs() -> None:
    log = Log()
    supervisor = Supervisor(dict(os.environ), log.write_line, SystemClock())
    await supervisor.start(replace(spec("stuck", IGNORES), stop_seconds=600))
    await log.wait_for(("stuck", "hello"))
    stopping = asyncio.create_task(supervisor.stop())
    waiting = "waiting for stuck, at most 600 s; press Ctrl-C to kill it instead"
    await log.wait_for(("ratchet", waiting))
    stopping.cancel()
    await asyncio.wait_for(stopping, 20)
    assert ("ratchet", "killing stuck") in log.lines
