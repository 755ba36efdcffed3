"""Results of a benchmark: a table on the terminal and `.ratchet/bench/<name>.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ratchet import console

FOLDER = Path(".ratchet/bench")


@dataclass(frozen=True)
class Result:
    """One figure. `ratio` is value over baseline, if a baseline was measured in the same run."""

    metric: str
    value: float
    unit: str
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None


def report(name: str, results: list[Result]) -> None:
    """Print the results and write them to a file."""
    rows = [asdict(result) | {"ratio": result.ratio} for result in results]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(
        json.dumps({"name": name, "results": rows}, indent=2) + "\n"
    )
    columns = ("metric", "value", "unit", "baseline", "ratio")
    console.print_table(
        columns, [[_cell(row[column]) for column in columns] for row in rows], title=name
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)
