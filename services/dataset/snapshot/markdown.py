"""Markdown around text that strangers wrote: whatever it says, it stays text. Tables are those of
GitHub's flavour.
"""

import re
from collections.abc import Iterable, Sequence

_BACKTICKS = re.compile(r"`+")
_UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would move a terminal's cursor, turn the direction of a line, or break one."""


def code(text: str) -> str:
    """Text in one line, as a code span; empty for blank text."""
    line = _visible(" ".join(text.split()))
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def block(text: str) -> str:
    """Text line by line, in a fenced code block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{_visible(text)}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown themselves; all columns but the first `left` hold numbers."""
    rule = [":--" if column < left else "--:" for column in range(len(header))]
    lines = ([cell.replace("|", r"\|") for cell in row] for row in (header, rule, *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def truncate(text: str, length: int) -> str:
    """The first `length` characters, and how many more there are."""
    return (
        text
        if len(text) <= length
        else f"{text[:length]} … ({len(text) - length:,} more characters)"
    )


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def _visible(text: str) -> str:
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text.replace("\t", "    "))
