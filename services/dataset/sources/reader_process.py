"""Process that reads documents: one path per line on standard input, one JSON object per line on
standard output, `{document}` or `{error}`.

Hostile files end or exhaust this process, not its parent (`isolated_reader`).
"""

import os
import resource
import sys
from pathlib import Path

from pydantic_core import from_json, to_json

from services.dataset.sources.document import UnreadableDocument
from services.dataset.sources.reading import read_document

MEMORY_BYTES = 2 << 30
"""Limit of the address space."""


def main() -> int:
    """Read documents until standard input ends; return the exit status."""
    _limit_memory()
    # Whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin.buffer:
        answers.write(_answer(Path(from_json(line))) + b"\n")
        answers.flush()
    return 0


def _answer(path: Path) -> bytes:
    try:
        return to_json({"document": read_document(path)}, inf_nan_mode="null")
    except UnreadableDocument as error:
        return to_json({"error": str(error)})
    except MemoryError:
        return to_json({"error": f"needs more than {MEMORY_BYTES >> 30} GiB of memory; divide it"})
    except RecursionError:
        return to_json({"error": "is nested too deeply"})
    except Exception as error:  # a fault of a reader on one file is the reason of that file
        return to_json({"error": f"cannot be read ({type(error).__name__})"})


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (OSError, ValueError):
        print("documents: this system does not limit the memory of a process", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
