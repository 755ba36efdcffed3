"""Output of commands: tables and lines for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, and nothing else, to standard output."""
    sys.stdout.write(to_json(value, indent=2).decode() + "\n")


def print_status(text: str) -> None:
    """Print a progress message to standard error, separate from the output."""
    err.print(text, highlight=False, soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
) -> None:
    """Print a table; the first column is not wrapped.

    Cells are untrusted text: markup and control characters have no effect.
    """
    headings = [
        Column(name, no_wrap=index == 0, overflow="fold") for index, name in enumerate(columns)
    ]
    grid = Table(*headings, title=title, title_justify="left")
    for row in rows:
        grid.add_row(*(Text("" if cell is None else escape_controls(str(cell))) for cell in row))
    out.print(grid)


def print_text(content: str) -> None:
    """Print untrusted text without interpreting it."""
    out.print(Text(escape_controls(content)), soft_wrap=True)


def escape_controls(content: str) -> str:
    """Replace control characters, except tabs and newlines, by escape sequences."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in content
    )
