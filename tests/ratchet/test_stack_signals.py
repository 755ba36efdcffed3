"""Stops of the stack: Ctrl-C, SIGTERM and a closed terminal stop its processes in order."""

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
from ratchet.local_stack.stack import run_until_interrupted
from ratchet.local_stack.supervisor import Supervisor
from shared.clock import SystemClock

folder = Path(sys.argv[1])
view = LogView(folder / "log", SystemClock())
SERVICE = "import pathlib, signal, sys; "
SERVICE += "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
SERVICE += "pathlib.Path(sys.argv[1], 'started').touch(); signal.sigwait({signal.SIGTERM}); "
SERVICE += "pathlib.Path(sys.argv[1], 'asked').touch(); pathlib.Path(sys.argv[2]).read_text()"

async def work():
    supervisor = Supervisor({}, view.write_line, SystemClock())
    command = (sys.executable, "-c", SERVICE, str(folder), sys.argv[2])
    try:
        await supervisor.start(ProcessSpec("service", command, {}, "http://127.0.0.1:9/readyz"))
        await supervisor.watch()
    finally:
        view.write_line("ratchet", "stopping")
        await supervisor.stop()
        view.write_line("ratchet", "stopped")

run_until_interrupted(work())
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the user's end and the program's end."""
    user, program = pty.openpty()
    yield user, program
    for end in (user, program):
        try:
            os.close(end)
        except OSError:
            continue  # closed by the test


def run(
    folder: Path,
    program: int,
    hangup: signal.Handlers = signal.SIG_DFL,
    read_at_end: Path = Path(os.devnull),
) -> subprocess.Popen[bytes]:
    # Make the terminal the controlling terminal of the process, as in an interactive shell. Set
    # SIGHUP explicitly, because the tests may run under nohup.
    setup = (
        "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        f"signal.signal(signal.SIGHUP, {int(hangup)})\n"
    )
    command = [sys.executable, "-c", setup + STACK, str(folder), str(read_at_end)]
    process = subprocess.Popen(
        command, stdin=program, stdout=program, stderr=program, start_new_session=True
    )
    wait_for_file(folder / "started", process)
    return process


def wait_for_file(file: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def log_after_exit(process: subprocess.Popen[bytes], folder: Path) -> list[str]:
    """Wait for exit status 0; return the last word of each line of the log."""
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
def test_a_signal_stops_the_stack(
    terminal: tuple[int, int], tmp_path: Path, number: signal.Signals
) -> None:
    process = run(tmp_path, terminal[1])
    process.send_signal(number)
    assert log_after_exit(process, tmp_path) == ["stopping", "stopped"]


def test_closing_the_terminal_stops_the_stack(terminal: tuple[int, int], tmp_path: Path) -> None:
    process = run(tmp_path, terminal[1])
    os.close(terminal[1])
    os.close(terminal[0])
    assert log_after_exit(process, tmp_path) == ["stopping", "stopped"]


def test_under_nohup_the_stack_survives_its_terminal(
    terminal: tuple[int, int], tmp_path: Path
) -> None:
    process = run(tmp_path, terminal[1], signal.SIG_IGN)
    os.close(terminal[1])
    os.close(terminal[0])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.terminate()
    assert log_after_exit(process, tmp_path) == ["stopping", "stopped"]


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGHUP, signal.SIGTERM)])
def test_a_second_request_kills_a_process_that_saves(
    terminal: tuple[int, int], tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    """Its repetitions within the same second are no second request; nor is a closed terminal."""
    os.mkfifo(tmp_path / "never")  # a reader waits for a writer
    process = run(tmp_path, terminal[1], read_at_end=tmp_path / "never")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    wait_for_file(tmp_path / "asked", process)
    time.sleep(1.5)
    assert process.poll() is None
    for number in numbers:
        process.send_signal(number)
    assert log_after_exit(process, tmp_path) == ["stopping", "service", "stopped"]
    assert " killing service" in (tmp_path / "log").read_text()
