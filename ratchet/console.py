"""What commands print: tables and lines for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table

out = Console()
err = Console(stderr=True)


def as_json(value: Any) -> None:
    """Print a value as JSON, and nothing else, on standard output."""
    sys.stdout.write(to_json(value, indent=2).decode() + "\n")


def note(text: str) -> None:
    """Say beside the output how far a command is."""
    err.print(text, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table."""
    grid = Table(*columns, title=title, title_justify="left")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(grid)
