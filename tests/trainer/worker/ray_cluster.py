"""A real Ray cluster of one machine: this one. Nobody gets in without its token: parts of Ray
listen on every address.
"""

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
"""Ray takes 127.0.0.1 for a mistake, and this machine's outer address instead of it."""

SECONDS = 120


@dataclass(frozen=True)
class RayCluster:
    """`client` is where a trainer outside of it asks, `process` the one that all of the cluster's
    come from.
    """

    client: str
    process: "subprocess.Popen[bytes]"

    def workers(self) -> list[int]:
        """The processes that hold a training process."""
        return [
            pid for pid, said in _descendants(self.process.pid) if said.startswith("ray::RayChild")
        ]

    def children(self) -> list[int]:
        """The training processes."""
        return [
            pid
            for pid, said in _descendants(self.process.pid)
            if "services.trainer.worker.training_process" in said
        ]


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Of four cores, whatever the machine has. Where its token lies is in the environment, for
    those who start from here.
    """
    # A short name: the path of a socket may be no longer than some hundred letters.
    with (
        TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as name,
        pytest.MonkeyPatch.context() as environment,
    ):
        folder = Path(name)
        environment.setenv("RAY_AUTH_MODE", "token")
        (folder / "token").write_text(token_hex(32))
        environment.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv(
            "GRPC_ENABLE_FORK_SUPPORT", "0"
        )  # else a head's process for a client dies now and then as it is forked
        environment.setenv("PYTHONPATH", str(Path.cwd()))  # what workers import is what is tested
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
        told = [f"--{name}={value}" for name, value in options.items()]
        start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *told]
        with (folder / "ray.log").open("wb") as log:
            process = subprocess.Popen(
                start, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            _await_line(folder / "ray.log", "Ray runtime started", process)
            yield RayCluster(f"ray://{HOST}:{client}", process)
        finally:
            everything = [pid for pid, _ in _descendants(process.pid)]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in everything:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _await_line(log: Path, line: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS
    while line not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _descendants(pid: int) -> list[tuple[int, str]]:
    """Processes that a process has started, and those that they have, with their command lines."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    found, wanted = [], {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found += sorted(wanted)
    return [(child, said) for child in found if (said := _command(child))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
