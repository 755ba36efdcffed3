"""Ray actor that hosts a trainer's training process and its pipes. Plain Python; Ray turns the
class into an actor.

When the actor ends for any reason, the pipes close, and the training process ends with its standard
input.
"""

import os
import socket
import subprocess
from pathlib import Path

from shared.python_command import module_command

PROBE_REPLY = "answer"
"""File name of the reply in a probe folder."""

RAY_VARIABLES = ("OMP_NUM_THREADS",)
"""Variables that Ray sets from the cores of an actor. The number of threads is set by `--threads`
instead, as without Ray.
"""


class RayTrainingProcess:
    """Holds the training process. Methods run concurrently, so a blocking `read` does not delay
    `write`.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def missing(self, probe: Path, bases: list[Path]) -> list[str]:
        """Return the trainer's folders that this machine does not see.

        `probe` is a folder that the trainer has just created in its work folder; a reply is written
        into it.
        """
        missing = [str(base) for base in bases if not base.is_dir()]
        try:
            (probe / PROBE_REPLY).write_text(socket.gethostname(), encoding="utf-8")
        except OSError as error:
            missing.append(f"{probe.parent} ({error.strerror})")
        return missing

    def start(self, options: list[str], variables: dict[str, str]) -> None:
        """Start the training process, with `variables` added to this machine's environment."""
        inherited = {name: value for name, value in os.environ.items() if name not in RAY_VARIABLES}  # noqa: TID251 (inherited)
        self._process = subprocess.Popen(
            module_command("services.trainer.worker.training_process", *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | variables,
        )

    def write(self, line: bytes) -> None:
        """Forward a line. Lines to a dead process are dropped; its exit status reports the
        failure.
        """
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(line)
            stdin.flush()
        except BrokenPipeError:
            return

    def read(self) -> bytes:
        """Return new output of the process; blocks until there is some. Empty after its end."""
        stdout = self._running().stdout
        assert stdout is not None
        return os.read(stdout.fileno(), 1 << 20)

    def status(self) -> int:
        """Return the exit status of the ended process; -N if signal N ended it."""
        return self._running().wait()

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process
