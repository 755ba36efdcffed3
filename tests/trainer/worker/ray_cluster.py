"""A real Ray cluster on this machine. A token is required: parts of Ray listen on all addresses."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import pytest

from ratchet.local_stack.ports import free_port

HOST = "127.0.0.2"
"""Ray rejects 127.0.0.1 and uses this machine's external address instead."""

SECONDS = 120


@dataclass(frozen=True)
class RayCluster:
    """`client` is the address for trainers outside the cluster, `process` the root of the cluster's
    process tree.
    """

    client: str
    process: "subprocess.Popen[bytes]"

    def workers(self) -> list[int]:
        """Return the ids of the Ray workers that host a training process."""
        return [
            pid
            for pid, command in _descendants(self.process.pid)
            if command.startswith("ray::RayTrainingProcess")
        ]

    def training_processes(self) -> list[int]:
        """Return the ids of the training processes."""
        return [
            pid
            for pid, command in _descendants(self.process.pid)
            if "services.trainer.worker.training_process" in command
        ]


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Start a cluster with four cores, independent of the machine. The token's path is in the
    environment of processes started here.
    """
    # A short name: the path of a socket is limited to about a hundred characters.
    with (
        TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as name,
        pytest.MonkeyPatch.context() as environment,
    ):
        folder = Path(name)
        environment.setenv("RAY_AUTH_MODE", "token")
        (folder / "token").write_text(token_hex(32))
        environment.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Without this setting, the head's process for a client sometimes crashes when it is forked.
        environment.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        environment.setenv("PYTHONPATH", str(Path.cwd()))  # workers import the tested code
        port, client = free_port(), free_port()
        options = {
            "node-ip-address": HOST,
            "port": port,
            "ray-client-server-port": client,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": 0,
            "num-cpus": 4,
            "num-gpus": 0,
            "object-store-memory": 80_000_000,
            "include-dashboard": "false",
            "temp-dir": folder,
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *arguments]
        with (folder / "ray.log").open("wb") as log:
            process = subprocess.Popen(
                start, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            _await_line(folder / "ray.log", "Ray runtime started", process)
            yield RayCluster(f"ray://{HOST}:{client}", process)
        finally:
            descendants = [pid for pid, _ in _descendants(process.pid)]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in descendants:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _await_line(log: Path, line: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS
    while line not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _descendants(pid: int) -> list[tuple[int, str]]:
    """Return the descendants of a process with their command lines."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
    descendants, level = [], {pid}
    while level:
        level = {descendant for descendant, parent in parents.items() if parent in level}
        descendants += sorted(level)
    return [
        (descendant, command) for descendant in descendants if (command := _command(descendant))
    ]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
