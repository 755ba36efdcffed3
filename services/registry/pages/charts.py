"""Small pictures as coordinates, in the units of an SVG's view box. Pure: a template draws what
stands here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SPARK_WIDTH, SPARK_HEIGHT, SPARK_EDGE = 120, 32, 4
SPAN_WIDTH, SPAN_EDGE = 300, 12


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line without axes, as an SVG `points` attribute, and where it ends."""

    line: str
    end: tuple[float, float]


def sparkline(values: Sequence[float]) -> Sparkline | None:
    """The line through some values, in their order; None without any."""
    if not values:
        return None
    low, high = min(values), max(values)
    across, up = SPARK_WIDTH - 2 * SPARK_EDGE, SPARK_HEIGHT - 2 * SPARK_EDGE
    places = [
        (
            round(SPARK_EDGE + across * place / max(1, len(values) - 1), 1),
            round(SPARK_EDGE + up * ((high - value) / (high - low) if high > low else 0.5), 1),
        )
        for place, value in enumerate(values)
    ]
    return Sparkline(" ".join(f"{x},{y}" for x, y in places), places[-1])


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """A difference with its interval on a common axis: places along it. `allowed` is that of the
    margin below zero.
    """

    lower: float
    difference: float
    upper: float
    zero: float
    allowed: float | None


def interval_bars(rows: Sequence[tuple[float, float, float, float | None]]) -> list[IntervalBar]:
    """Rows of (lower, difference, upper, margin), each on an axis of its own that has zero in the
    middle and room for all of the row: likelihoods and shares cannot be read on one scale.
    """
    return [_span(*row) for row in rows]


def _span(lower: float, difference: float, upper: float, margin: float | None) -> IntervalBar:
    reach = max(abs(lower), abs(difference), abs(upper), margin or 0.0) or 1.0

    def at(value: float) -> float:
        return round(SPAN_WIDTH / 2 + (SPAN_WIDTH / 2 - SPAN_EDGE) * value / reach, 1)

    return IntervalBar(
        at(lower), at(difference), at(upper), at(0.0), at(-margin) if margin else None
    )
