"""Tables of the commands in terminals of any width."""

from io import StringIO

import pytest
from rich.console import Console

from ratchet import console

COLUMNS = ("run", "state", "reason")
RUN, REASON = "8b080ee0024166912997aaca3dc71dc0", "golden: +0.7401 nats per token over 12 examples"


def printed(monkeypatch: pytest.MonkeyPatch, width: int, *rows: tuple[object, ...]) -> list[str]:
    monkeypatch.setattr(console, "out", Console(file=StringIO(), width=width))
    console.print_table(COLUMNS, rows)
    assert isinstance(console.out.file, StringIO)
    return console.out.file.getvalue().splitlines()


def test_a_wide_terminal_has_one_line_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 120, (RUN, "promoted", REASON), ("r2", "waiting", None))
    assert any(RUN in line and "promoted" in line and REASON in line for line in lines)
    assert any("r2" in line and "waiting" in line for line in lines)


def test_a_narrow_terminal_has_a_block_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 60, (RUN, "promoted", REASON), ("r2", "waiting", None))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert ["run", RUN] in cells
    assert ["state", "promoted"] in cells
    assert ["reason", ""] in cells
    assert " ".join(value for name, value in cells if name in ("reason", "")).strip() == REASON


@pytest.mark.parametrize("width", [1, 20, 80])
def test_nothing_is_lost_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = "".join(printed(monkeypatch, width, (1, "[bold]x[/bold]", "y\x1b")))
    assert width < 80 or "[bold]x[/bold]" in text
    assert "\x1b" not in text
    assert printed(monkeypatch, width) != []
