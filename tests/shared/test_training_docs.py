"""The ranges and defaults in docs/training.md match the code."""

from pathlib import Path

from shared.config.training import LANE_RANGES, TrainingConfig
from shared.events.hyperparameters import Lane

LANES: tuple[Lane, ...] = ("adaptive", "master")


def test_the_docs_have_the_ranges_and_defaults_of_the_code() -> None:
    lines = Path("docs/training.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| setting | adaptive: range | default | master: range | default |") + 2
    documented_rows = lines[start : lines.index("", start)]
    assert documented_rows == [row(name) for name in LANE_RANGES["adaptive"]]


def row(name: str) -> str:
    cells = [f"`{name}`"]
    for lane in LANES:
        least, most = LANE_RANGES[lane][name]
        cells += [f"{least:g} to {most:g}", f"{getattr(TrainingConfig(lane=lane), name):g}"]
    return f"| {' | '.join(cells)} |"
