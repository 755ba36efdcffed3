"""Building of a dataset from documents: time and memory of 5,000 examples without a teacher.

The documents are Markdown of made-up words: paragraphs, definitions and tables, 1,200 sections in
150 files. The build runs as `ratchet master plan` runs it, in a process of its own; reading of the
files is part of it.
"""

import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory

from pydantic_core import from_json

from benchmarks.results import Result, report
from shared.clock import SystemClock
from shared.identity import identity

DOCUMENTS, SECTIONS = 150, 8
DEFINITIONS, ROWS = 2, 3
EXAMPLES = 5_000

_SYLLABLES = tuple(first + second for first in "bdfgklmnprstvz" for second in "aeiou")
_MODEL = """\
model: support
base: {training: base, serving: base.gguf}
"""


def main() -> None:
    """Write the documents, build a dataset of them, print the figures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        (folder / "models" / "support.yaml").write_text(_MODEL)
        (folder / "documents").mkdir()
        for number in range(DOCUMENTS):
            (folder / "documents" / f"{number}.md").write_text(_document(number))
        clock = SystemClock()
        start = clock.monotonic()
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "services.dataset.build",
                "--model=support",
                f"--documents={folder / 'documents'}",
                "--dry-run",
            ],
            env={"RATCHET_MODELS": str(folder / "models"), "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = clock.monotonic() - start
    built = from_json(finished.stdout)
    candidates = sum(built["candidates"].values())
    examples = built["examples"]["training"] + built["examples"]["held_out"]
    if candidates - sum(built["filtered"].values()) != EXAMPLES:
        sys.exit(f"expected {EXAMPLES} examples after the filters: {built['filtered']}")
    kilobytes = 1 if sys.platform == "darwin" else 1024
    report(
        "master",
        [
            Result("build_5000_seconds", seconds, "s"),
            Result("build_5000_examples", examples, "examples after curation"),
            Result("build_5000_candidates", candidates, "examples before the filters"),
            Result(
                "build_5000_memory", getrusage(RUSAGE_CHILDREN).ru_maxrss * kilobytes / 2**20, "MiB"
            ),
        ],
    )


def _document(number: int) -> str:
    """Return one document. The same number is always the same document."""
    parts = [f"# {_words(f'{number} title', 3).capitalize()}"]
    for section in range(SECTIONS):
        seed = f"{number} {section}"
        parts.append(f"## {_words(f'{seed} heading', 3).capitalize()}")
        parts.append(f"{_words(f'{seed} text', 60)}.")
        parts.append(
            "\n".join(
                f"- **{_words(f'{seed} term {n}', 2)}**: {_words(f'{seed} definition {n}', 15)}."
                for n in range(DEFINITIONS)
            )
        )
        rows = (
            f"| {_words(f'{seed} row {n}', 2)} | {_number(f'{seed} a {n}')} "
            f"| {_number(f'{seed} b {n}')} EUR |"
            for n in range(ROWS)
        )
        parts.append("\n".join(["| Part | Number | Price |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _words(seed: str, count: int) -> str:
    """Return made-up words of two to four syllables."""
    return " ".join(_word(int(identity(seed, at), 16)) for at in range(count))


def _word(number: int) -> str:
    word = ""
    for _ in range(2 + number % 3):
        number, place = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[place]
    return word


def _number(seed: str) -> int:
    return int(identity(seed), 16) % 90_000 + 100


if __name__ == "__main__":
    main()
