"""Error rate of the gate's lower bound with few examples and skewed differences: the basis of
`minimum_examples`.

Differences are drawn with a true mean of zero, most of them a little above it and some far below,
like those of a candidate that is a little better on most prompts and much worse on a few. The lower
bound errs if it is above zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.trainer.gate.budget import GateHistory
from services.trainer.gate.confidence_bounds import Floats, bootstrap_bounds

EXAMPLES = (5, 8, 12, 24)
DRAWS = 1000
ALPHA = GateHistory().level(0.95, evaluation=1) / 2

Draw = Callable[[np.random.Generator, int], Floats]
DIFFERENCES: dict[str, tuple[float, Draw]] = {
    "normal": (0.0, lambda draw, count: draw.normal(0, 1, count)),
    "gamma, shape 4": (-1.0, lambda draw, count: 4 - draw.gamma(4, 1, count)),
    "exponential": (-2.0, lambda draw, count: 1 - draw.exponential(1, count)),
}


@dataclass(frozen=True)
class BoundError:
    """Share of draws in which the lower bound is above the true mean."""

    examples: int
    differences: str
    skewness: float
    share: float

    @property
    def row(self) -> tuple[object, ...]:
        return (
            self.examples,
            self.differences,
            self.skewness,
            f"{self.share:.4f}",
            f"{self.share / ALPHA:.1f}",
        )


def simulate_bound_errors() -> list[BoundError]:
    return [
        BoundError(count, name, skewness, _error(count, draw))
        for count in EXAMPLES
        for name, (skewness, draw) in DIFFERENCES.items()
    ]


def _error(count: int, differences: Draw) -> float:
    draw = np.random.default_rng(count)
    return float(
        np.mean(
            [
                bootstrap_bounds(differences(draw, count).tolist(), ALPHA, 0.05, seed)[0] > 0
                for seed in range(DRAWS)
            ]
        )
    )
