"""The guide docs/first-model.md, followed command by command: a new model learns its own task from
the feedback of three colleagues, with default settings.

`RATCHET_GUIDE_BATCHES=3` has the size of a release: three batches instead of one. Only the ports
and the folder of bases differ from what a reader has.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.local_stack.ports import free_port
from ratchet.local_stack.processes import Ports, local_url
from ratchet.registry_client import RegistryClient

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.chaos, pytest.mark.timeout(1800)]

GUIDE = Path("docs/first-model.md")
BATCHES = int(os.environ.get("RATCHET_GUIDE_BATCHES", "1"))
SET_UP = ["make setup", ". .venv/bin/activate"]
STACK = "ratchet up"
PROMOTED_SECONDS = 1200
GAIN = 12 / 40
"""Least growth of the share of exact answers to the unseen questions, within three batches."""


def commands() -> list[str]:
    """Return the commands of the guide in their order, without the comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s{2,}#.*", "", line) for line in lines]


class Reader:
    """A reader in an empty folder with the examples, and with the commands of the test."""

    def __init__(self, folder: Path, bases: Path) -> None:
        (folder / "examples").symlink_to(Path("examples").absolute())
        ports = Ports(**{field.name: free_port() for field in fields(Ports)})
        self._folder = folder
        self._environment = (
            os.environ
            | {f"RATCHET_{name.upper()}_PORT": str(port) for name, port in vars(ports).items()}
            | {
                "HOME": str(folder),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "RATCHET_BASES": str(bases.absolute()),
                "RATCHET_REGISTRY": local_url(ports.registry),
                "RATCHET_SERVING": local_url(ports.serving),
                "RATCHET_BOOTSTRAP_SERVERS": f"127.0.0.1:{ports.kafka}",
            }
        )
        self._stack: subprocess.Popen[bytes] | None = None

    def run(self, command: str) -> str:
        """Run a command, which has to succeed, and return its output."""
        process = subprocess.run(
            command,
            shell=True,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert process.returncode == 0, f"{command}\n{process.stdout}"
        return process.stdout

    def start(self, command: str) -> None:
        """Start a command in another terminal, and wait until it says that it runs."""
        log = self._folder / "up.log"
        with log.open("wb") as output:
            stack = self._stack = subprocess.Popen(
                command.split(),
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while "Ctrl-C stops" not in (text := log.read_text()):
            assert stack.poll() is None, text
            time.sleep(0.5)

    def wait_for_runs(self, count: int) -> list[dict[str, Any]]:
        """Wait until a number of runs has ended and the newest promoted version answers; return the
        runs, oldest first.
        """
        end = time.monotonic() + PROMOTED_SECONDS
        with RegistryClient(self._environment["RATCHET_REGISTRY"]) as registry:
            while time.monotonic() < end:
                items = registry.get("/api/models/dates/runs")["items"]
                runs = [run for run in reversed(items) if run["ended_at"]]
                promoted = [run["version"] for run in runs if run["state"] == "promoted"]
                if len(runs) >= count and (not promoted or self._served() == promoted[-1]):
                    return runs
                time.sleep(1)
        raise AssertionError((self._folder / "up.log").read_text()[-5000:])

    def _served(self) -> str:
        models = httpx.get(f"{self._environment['RATCHET_SERVING']}/v1/models").json()
        return str(models["aliases"]["dates"]).removeprefix("dates:")

    def stop(self) -> None:
        if self._stack is not None and self._stack.poll() is None:
            self._stack.send_signal(signal.SIGINT)
            self._stack.wait(timeout=60)


@pytest.fixture
def reader(tmp_path: Path, bases: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path, bases)
    yield reader
    reader.stop()


def exact(output: str) -> float:
    found = re.search(r"(\d+) of (\d+) exact", output)
    assert found, output
    return int(found[1]) / int(found[2])


def test_the_guide_ends_with_a_better_version(reader: Reader) -> None:
    steps = commands()
    assert steps[: len(SET_UP)] == SET_UP, "the environment of this test"
    shares, runs = [], list[dict[str, Any]]()
    for step in steps[len(SET_UP) :]:
        if step == STACK:
            reader.start(step)
            continue
        if step == "ratchet status":
            runs = reader.wait_for_runs(1)
        output = reader.run(step)
        if step.endswith("--unseen"):
            shares.append(exact(output))
    for number in range(2, BATCHES + 1):
        reader.run(f"python examples/dates.py --stream {number}")
        runs = reader.wait_for_runs(number)
        shares.append(exact(reader.run("python examples/dates.py --unseen")))
    assert len(shares) == BATCHES + 1
    assert runs[0]["state"] == "promoted", runs
    assert max(shares[1:]) - shares[0] >= GAIN, shares
