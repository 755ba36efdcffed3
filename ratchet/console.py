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

MIN_COLUMN = 18
"""Characters of a cell that a column shows in one line: those of the name of a version."""


def print_json(value: Any) -> None:
    """Print a value as JSON, and nothing else, to standard output."""
    sys.stdout.write(to_json(value, indent=2).decode() + "\n")


def print_status(text: str) -> None:
    """Print a progress message to standard error, separate from the output."""
    err.print(text, highlight=False, soft_wrap=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
) -> None:
    """Print a table, or one block of lines per row where the columns would become too narrow to
    read. The first column is not wrapped.

    Cells are untrusted text: markup and control characters have no effect.
    """
    cells = [
        [Text("" if cell is None else escape_controls(str(cell))) for cell in row] for row in rows
    ]
    if _fits(columns, cells):
        headings = [
            Column(name, no_wrap=index == 0, overflow="fold") for index, name in enumerate(columns)
        ]
        grid = Table(*headings, title=title, title_justify="left")
        for row in cells:
            grid.add_row(*row)
    else:
        headings = [Column(columns[0], no_wrap=True), Column("", overflow="fold")]
        grid = Table(*headings, title=title, title_justify="left", show_header=False)
        for row in cells:
            for name, cell in zip(columns, row, strict=True):
                grid.add_row(Text(name), cell)
            grid.add_section()
    out.print(grid)


def _fits(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> bool:
    """True if the width leaves the first column its cells, and each other column MIN_COLUMN
    characters of longer cells.
    """
    first, *others = zip(*rows, map(Text, columns), strict=True)
    widths = [max(map(len, first))]
    widths += [max(min(MIN_COLUMN, len(cell)) for cell in column) for column in others]
    return sum(widths) + 3 * len(widths) + 1 <= out.width


def print_text(content: str) -> None:
    """Print untrusted text without interpreting it."""
    out.print(Text(escape_controls(content)), soft_wrap=True)


def escape_controls(content: str) -> str:
    """Replace control characters, except tabs and newlines, by escape sequences."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in content
    )
