"""Live view of the demo: the current activity, a progress bar, and a table row for each round."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ratchet.demo.report import RoundResult
from shared.events import Event, TrainingProgressed

_COLUMNS = (
    "round",
    "verdict",
    "version",
    "held-out before",
    "after",
    "exact answers",
    "train",
    "evaluate",
    "deploy",
    "50th example → served",
)


class DemoView:
    """Updates in place on a terminal; otherwise prints a line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, ...]] = []
        self._now = Text("")
        self._progress = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(40),
            TextColumn("{task.fields[details]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar: TaskID | None = None
        self._live = (
            Live(console=console, refresh_per_second=5, get_renderable=self._render)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show_activity(self, text: str) -> None:
        """Show the current activity."""
        self._now = Text(f"▸ {text}", style="bold")
        self._hide_bar()
        if not self._live:
            self._console.print(self._now)

    def show_progress(
        self, description: str, completed: int, total: int, details: str = ""
    ) -> None:
        """Update the progress bar."""
        if not self._live:
            return
        if self._bar is None or self._progress.tasks[0].description != description:
            self._hide_bar()
            self._bar = self._progress.add_task(description, total=total, details=details)
        self._progress.update(self._bar, completed=completed, total=total, details=details)

    def on_event(self, event: Event) -> None:
        """Show the progress of a training run."""
        if isinstance(event, TrainingProgressed):
            loss = f"loss {event.loss:.3f}" if event.loss is not None else ""
            speed = (
                f"{event.tokens_per_second:.0f} tokens/s"
                if event.tokens_per_second is not None
                else ""
            )
            self.show_progress(
                event.phase,
                event.step,
                max(event.total_steps, 1),
                "  ".join(filter(None, (loss, speed))),
            )

    def add_base_row(self, exact: float) -> None:
        self._row(("base", "", "v0", "", "", _percent(exact), "", "", "", ""))

    def add_round_row(self, name: str, row: RoundResult) -> None:
        seconds = row.seconds
        cells = (
            name,
            row.verdict,
            row.version or "",
            _nats(row.heldout_before),
            _nats(row.heldout_after),
            _percent(row.exact),
        )
        self._row(
            (
                *cells,
                *(
                    f"{value:.1f} s" if value else ""
                    for value in (seconds.train, seconds.evaluate, seconds.deploy, seconds.total)
                ),
            )
        )

    def add_row(
        self, name: str, verdict: str, version: str, exact: float, seconds: float | None = None
    ) -> None:
        """Add a row for a step other than a training round."""
        self._row(
            (
                name,
                verdict,
                version,
                "",
                "",
                _percent(exact),
                "",
                "",
                "" if seconds is None else f"{seconds:.2f} s",
                "",
            )
        )

    def _row(self, cells: tuple[str, ...]) -> None:
        self._rows.append(cells)
        if not self._live:
            named = (
                f"{column} {cell}"
                for column, cell in zip(_COLUMNS[1:], cells[1:], strict=True)
                if cell
            )
            self._console.print(f"  {cells[0]}: {', '.join(named)}", highlight=False)

    def _hide_bar(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None

    def _render(self) -> Group:
        table = Table(
            *_COLUMNS,
            title="exact answers of the served model on unseen tickets",
            title_justify="left",
        )
        for cells in self._rows:
            style = {"promote": "green", "reject": "red", "inconclusive": "yellow"}.get(
                cells[1], ""
            )
            table.add_row(
                *(
                    Text(cell, style=style if column == 1 else "")
                    for column, cell in enumerate(cells)
                )
            )
        return Group(table, self._now, self._progress)


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
