"""Combined log of all processes: on the terminal, with a colour per process, and in a file."""

from pathlib import Path

from rich.text import Text

from ratchet import console
from shared.clock import Clock

_COLOURS = {
    "ratchet": "bold",
    "serving": "magenta",
    "feedback": "cyan",
    "dataset": "blue",
    "builder": "blue",
    "trainer": "yellow",
    "registry": "green",
}


class LogView:
    """Writes log lines to a file and, with `terminal`, to the terminal until that is closed."""

    def __init__(self, file: Path, clock: Clock, *, terminal: bool = True) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a", encoding="utf-8", buffering=1)
        self._clock = clock
        self._terminal = terminal

    def write_line(self, name: str, text: str) -> None:
        self._file.write(
            f"{self._clock.now().isoformat(timespec='milliseconds')} {name:9} {text}\n"
        )
        if not self._terminal:
            return
        try:
            console.out.print(
                Text.assemble((f"{name:9} ", _COLOURS.get(name, "")), Text.from_ansi(text)),
                soft_wrap=True,
            )
        except (OSError, SystemExit):
            # The terminal is closed (rich turns a broken pipe into SystemExit). Continue without
            # it, so that the processes are stopped in order.
            self._terminal = False
