"""A loss curve as coordinates. Pure: the page draws what stands here."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 36


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, in the picture's units, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through the points, as an SVG `points` attribute, with the marks of both axes."""

    line: str
    dots: tuple[tuple[float, float], ...]
    steps: tuple[Tick, ...]
    losses: tuple[Tick, ...]


def curve(points: Sequence[tuple[int, float]]) -> Curve | None:
    """The curve through (step, loss) in order of step; None without points. The loss axis begins at 0 or at the lowest loss below."""
    if not points:
        return None
    first, last = points[0][0], points[-1][0]
    low, high = min(0.0, *(loss for _, loss in points)), max(loss for _, loss in points)
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(step: float) -> float:
        return round(LEFT + across * (step - first) / max(1, last - first), 1)

    def y(loss: float) -> float:
        return round(TOP + up * (1 - (loss - low) / ((high - low) or 1)), 1)

    dots = tuple((x(step), y(loss)) for step, loss in points)
    middle = first + (last - first) // 2
    steps = tuple(Tick(x(step), str(step)) for step in sorted({first, middle, last}))
    losses = tuple(Tick(y(loss), f"{loss:.3g}") for loss in sorted({low, (low + high) / 2, high}))
    return Curve(" ".join(f"{a},{b}" for a, b in dots), dots, steps, losses)
