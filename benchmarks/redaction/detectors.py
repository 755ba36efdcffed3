"""Detectors of personal data and secrets: Ratchet's redaction, and the libraries to compare with,
which run in an environment of their own.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.redaction.corpus import Span
from shared.config.redaction_policy import RedactionPolicy
from shared.redaction.redactor import Redactor

_PLACEHOLDER = re.compile(r"<([A-Z]+)_\d+>")


def detect_by_ratchet(texts: Sequence[str]) -> list[list[Span]]:
    """Return what the default policy replaces."""
    redactor = Redactor(RedactionPolicy())
    return [_replaced(text, redactor.redact_texts([text]).texts[0]) for text in texts]


def _replaced(text: str, redacted: str) -> list[Span]:
    """Find the parts of a text in place of which there are placeholders."""
    pieces = _PLACEHOLDER.split(redacted)
    kept, kinds = pieces[::2], [kind.lower() for kind in pieces[1::2]]
    pattern = "(.+?)".join(map(re.escape, kept))
    found = re.fullmatch(pattern, text, re.DOTALL)
    assert found, redacted
    return [Span(*found.span(index + 1), kind) for index, kind in enumerate(kinds)]


def detect_by_libraries(python: Path, texts: Sequence[str]) -> dict[str, list[list[Span]]]:
    """Return what each library finds, by its name. `python` belongs to the environment that has
    them.
    """
    process = subprocess.run(
        (python, Path(__file__).parent / "libraries.py"),
        input=json.dumps(texts),
        capture_output=True,  # without a network, a library of Presidio's writes tracebacks
        text=True,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(process.stderr[-2000:])
    return {
        name: [[Span(*span) for span in spans] for spans in found]
        for name, found in json.loads(process.stdout).items()
    }
