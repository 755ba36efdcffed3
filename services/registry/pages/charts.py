"""Small charts as coordinates in the units of an SVG view box, drawn by templates. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

SPARK_WIDTH, SPARK_HEIGHT, SPARK_MARGIN = 120, 32, 4
INTERVAL_WIDTH, INTERVAL_MARGIN = 300, 12


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line without axes: the SVG attribute `points`, and the end point."""

    line: str
    end: tuple[float, float]


def sparkline(values: Sequence[float]) -> Sparkline | None:
    """Return the line through some values in their order, None without values."""
    if not values:
        return None
    low, high = min(values), max(values)
    width, height = SPARK_WIDTH - 2 * SPARK_MARGIN, SPARK_HEIGHT - 2 * SPARK_MARGIN
    points = [
        (
            round(SPARK_MARGIN + width * index / max(1, len(values) - 1), 1),
            round(
                SPARK_MARGIN + height * ((high - value) / (high - low) if high > low else 0.5), 1
            ),
        )
        for index, value in enumerate(values)
    ]
    return Sparkline(" ".join(f"{x},{y}" for x, y in points), points[-1])


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """A difference and its confidence interval as positions on an axis. `allowed` is the position
    of the margin below zero.
    """

    lower: float
    difference: float
    upper: float
    zero: float
    allowed: float | None


def interval_bars(rows: Sequence[tuple[float, float, float, float | None]]) -> list[IntervalBar]:
    """Return a bar for each row of (lower, difference, upper, margin).

    Each row has its own axis with zero in the middle, since likelihoods and shares differ in scale.
    """
    return [_interval_bar(*row) for row in rows]


def _interval_bar(
    lower: float, difference: float, upper: float, margin: float | None
) -> IntervalBar:
    extent = max(abs(lower), abs(difference), abs(upper), margin or 0.0) or 1.0

    def at(value: float) -> float:
        return round(
            INTERVAL_WIDTH / 2 + (INTERVAL_WIDTH / 2 - INTERVAL_MARGIN) * value / extent, 1
        )

    return IntervalBar(
        at(lower), at(difference), at(upper), at(0.0), at(-margin) if margin else None
    )
