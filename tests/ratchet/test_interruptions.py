"""What ends a stack from outside: Ctrl-C, SIGTERM, a terminal that is closed. What it started ends
with it, in order.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STACK = """
import asyncio, sys
from pathlib import Path
from ratchet.local_stack.log_view import LogView
from ratchet.local_stack.processes import ProcessSpec
from ratchet.local_stack.supervisor import Supervisor
from ratchet.local_stack.stack import run_until_interrupted
from shared.clock import SystemClock

folder = Path(sys.argv[1])
view = LogView(folder / "log", SystemClock())
SERVICE = "import pathlib, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
SERVICE += "pathlib.Path(sys.argv[1], 'started').touch(); signal.sigwait({signal.SIGTERM})"

async def work():
    supervisor = Supervisor({}, view.line, SystemClock())
    try:
        await supervisor.start(ProcessSpec("service", (sys.executable, "-c", SERVICE, str(folder)), {}, "http://127.0.0.1:9/readyz"))
        await supervisor.watch()
    finally:
        view.line("ratchet", "stopping")
        await supervisor.stop()
        view.line("ratchet", "stopped")

run_until_interrupted(work())
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the end at which a person would sit, and the other one."""
    person, program = pty.openpty()
    yield person, program
    for end in (person, program):
        try:
            os.close(end)
        except OSError:
            continue  # the test has closed it


def run(
    folder: Path, program: int, hangup: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen[bytes]:
    # The terminal becomes that of the process, as it is when one types the command there; whoever
    # runs the tests may be under nohup.
    own = (
        "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        f"signal.signal(signal.SIGHUP, {int(hangup)})\n"
    )
    command = [sys.executable, "-c", own + STACK, str(folder)]
    process = subprocess.Popen(
        command, stdin=program, stdout=program, stderr=program, start_new_session=True
    )
    end = time.monotonic() + 20
    while not (folder / "started").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def lines_at_its_end(process: subprocess.Popen[bytes], folder: Path) -> list[str]:
    """The last word of each line of its log, once it has ended well."""
    try:
        status: int | None = process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = None
    log = (folder / "log").read_text()
    assert status == 0, log
    return [line.split()[-1] for line in log.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_what_was_started(
    terminal: tuple[int, int], tmp_path: Path, number: signal.Signals
) -> None:
    process = run(tmp_path, terminal[1])
    process.send_signal(number)
    assert lines_at_its_end(process, tmp_path) == ["stopping", "stopped"]


def test_a_terminal_that_is_closed_stops_what_was_started(
    terminal: tuple[int, int], tmp_path: Path
) -> None:
    process = run(tmp_path, terminal[1])
    os.close(terminal[1])
    os.close(terminal[0])
    assert lines_at_its_end(process, tmp_path) == ["stopping", "stopped"]


def test_under_nohup_it_outlives_its_terminal(terminal: tuple[int, int], tmp_path: Path) -> None:
    process = run(tmp_path, terminal[1], signal.SIG_IGN)
    os.close(terminal[1])
    os.close(terminal[0])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.terminate()
    assert lines_at_its_end(process, tmp_path) == ["stopping", "stopped"]
