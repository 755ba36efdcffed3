"""What lives on a Ray cluster for one trainer: a training process and its pipes. Plain Python,
which Ray makes an actor of.

When the actor ends, however it does, the pipes close, and with its standard input the training
process ends.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

PROBE_REPLY = "answer"
"""The file of an answered probe."""

RAY_VARIABLES = ("OMP_NUM_THREADS",)
"""What Ray sets by the cores that an actor asks for. How many threads there are is said by
`--threads`, as it is elsewhere.
"""


class RayTrainingProcess:
    """One method runs beside another: whoever waits for what the process says does not keep others
    from speaking to it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def missing(self, probe: Path, bases: list[Path]) -> list[str]:
        """Which of the trainer's folders this machine has not: `probe`, which the trainer has just
        made in its work folder and which is answered, and its bases.
        """
        absent = [str(base) for base in bases if not base.is_dir()]
        try:
            (probe / PROBE_REPLY).write_text(socket.gethostname(), encoding="utf-8")
        except OSError as error:
            absent.append(f"{probe.parent} ({error.strerror})")
        return absent

    def start(self, options: list[str], variables: dict[str, str]) -> None:
        """Start the training process, with `variables` besides those of this machine."""
        here = {name: value for name, value in os.environ.items() if name not in RAY_VARIABLES}  # noqa: TID251 (handed on)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.trainer.worker.training_process", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=here | variables,
        )

    def write(self, line: bytes) -> None:
        """Hand on a line. One that nobody reads any more is dropped: its end is what there is to
        know of the process then.
        """
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:
            return

    def read(self) -> bytes:
        """What the process has said since it was read last; waits for something. Empty when it has
        ended.
        """
        stdout = self._running().stdout
        assert stdout is not None
        return os.read(stdout.fileno(), 1 << 20)

    def status(self) -> int:
        """The exit status of the process, which has ended; -N when signal N ended it."""
        return self._running().wait()

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process
