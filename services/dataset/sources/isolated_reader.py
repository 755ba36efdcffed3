"""Reading of documents in a child process, with limits on time and memory."""

import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from pydantic_core import from_json, to_json

from services.dataset.sources.document import SourceDocument, UnreadableDocument
from shared.python_command import module_command

SECONDS_PER_FILE = 60.0

_MODULE = "services.dataset.sources.reader_process"


class IsolatedReader:
    """Reads documents, one at a time. A context manager: leaving it ends the child process.

    A file that ends the process, or takes longer than `seconds`, is unreadable; the next file gets
    a new process.
    """

    def __init__(self, seconds: float = SECONDS_PER_FILE) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "IsolatedReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def read(self, path: Path) -> SourceDocument:
        """Read a file. Raises UnreadableDocument with the reason."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = Timer(self._seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(to_json(str(path)) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            was_late = not timer.is_alive()
            timer.cancel()
        is_whole = line.endswith(b"\n")
        if was_late or not is_whole:
            self._stop()
        if not is_whole:
            raise UnreadableDocument(
                f"takes longer than {self._seconds:g} s to read; divide it"
                if was_late
                else f"ended the process that read it (status {process.returncode}); divide it, "
                "or save it again"
            )
        answer: dict[str, Any] = from_json(line)
        if "error" in answer:
            raise UnreadableDocument(answer["error"])
        return SourceDocument.model_validate(answer["document"])

    def _running(self) -> "subprocess.Popen[bytes]":
        """Return the process, or a new one if it has ended since the last file."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._process is None:
            self._process = subprocess.Popen(
                module_command(_MODULE), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):  # of a line that was not written
                        stream.close()
