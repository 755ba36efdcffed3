"""Markdown with text from users: whatever it contains, it is shown as text.

Tables have the syntax of GitHub Flavored Markdown.
"""

import re
from collections.abc import Iterable, Sequence

_BACKTICKS = re.compile(r"`+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that would move a terminal's cursor, change the direction of a line, or break it."""


class Markdown(str):
    """Markdown that is safe to put on a page: users' text in it is escaped."""

    __slots__ = ()


def code(text: str) -> Markdown:
    """Format text as a code span in one line; empty for blank text."""
    line = _visible(" ".join(text.split()))
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{fence}{pad}{line}{pad}{fence}" if line else "")


def block(text: str) -> Markdown:
    """Format text as a fenced code block, line by line."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{fence}text\n{_visible(text)}\n{fence}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Markdown:
    """Format a table. Cells are Markdown; all columns but the first `left` are right-aligned."""
    rule = [":--" if column < left else "--:" for column in range(len(header))]
    lines = ([cell.replace("|", r"\|") for cell in row] for row in (header, rule, *rows))
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def truncate(text: str, length: int) -> str:
    """Return the first `length` characters, followed by the number of characters left out."""
    return (
        text
        if len(text) <= length
        else f"{text[:length]} … ({len(text) - length:,} more characters)"
    )


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text.replace("\t", "    "))
