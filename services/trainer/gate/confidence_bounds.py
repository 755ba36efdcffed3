"""Confidence bounds of a candidate's gain from paired differences: bootstrap for scores, exact for
pass-or-fail results.
"""

from collections.abc import Sequence
from math import comb, erfc, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
RESOLVED = 10 / RESAMPLES
"""Smallest error whose quantile the resamples resolve."""
UNBOUNDED = 1e6
"""Replaces infinity where too few examples give no bound: events hold finite numbers only."""

Floats = npt.NDArray[np.float64]


class BootstrapBounds:
    """One-sided confidence bounds of a mean by the studentised bootstrap (Efron & Tibshirani 1993,
    12.5), each with its own error.

    With five to ten examples, the plain percentile bootstrap errs two to six times as often as
    stated; this one keeps its stated error unless the differences are very skewed. Beyond the
    resolution of the resamples, its quantile is scaled as the normal distribution's grows. Fewer
    than two examples give no bound.
    """

    def __init__(self, differences: Sequence[float], seed: int) -> None:
        values = np.asarray(differences, dtype=np.float64)
        n = len(values)
        self.examples, self._bounded = n, n > 1
        self.mean = float(values.mean()) if n else 0.0
        self.error = float(values.std(ddof=1) / np.sqrt(n)) if self._bounded else 0.0
        self._students = _students(values, self.mean, self.error, seed) if self.error else None

    def lower(self, alpha: float) -> float:
        if not self._bounded:
            return -UNBOUNDED
        if self._students is None:
            return self.mean
        return _finite(self.mean - _upper_quantile(self._students, alpha) * self.error)

    def upper(self, alpha: float) -> float:
        if not self._bounded:
            return UNBOUNDED
        if self._students is None:
            return self.mean
        return _finite(self.mean + _upper_quantile(-self._students, alpha) * self.error)

    def p_value(self, margin: float) -> float:
        """Return the smallest error at which the lower bound is above `margin`: the inversion of
        `lower`.
        """
        if not self._bounded:
            return 1.0
        if self._students is None:
            return float(self.mean <= margin)
        return upper_share(self._students, (self.mean - margin) / self.error)


def bootstrap_bounds(
    differences: Sequence[float], alpha_lower: float, alpha_upper: float, seed: int
) -> tuple[float, float]:
    """Return the lower and the upper bound of `BootstrapBounds`."""
    bounds = BootstrapBounds(differences, seed)
    return bounds.lower(alpha_lower), bounds.upper(alpha_upper)


def _students(values: Floats, mean: float, error: float, seed: int) -> Floats:
    """Return the studentised means of the resamples, ascending."""
    n = len(values)
    resampled = values[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))]
    shift = resampled.mean(axis=1) - mean
    errors = resampled.std(axis=1, ddof=1) / np.sqrt(n)
    degenerate = errors < error * 1e-9
    students = np.where(
        degenerate, np.copysign(np.inf, shift), shift / np.where(degenerate, 1.0, errors)
    )
    return np.asarray(np.sort(students))


def _upper_quantile(students: Floats, alpha: float) -> float:
    """Return the value that a share `alpha` of the distribution is above."""
    resolved = max(alpha, RESOLVED)
    quantile = float(np.quantile(students, 1 - resolved, method="higher"))
    if quantile <= 0:
        return quantile
    normal = NormalDist()
    return quantile * max(1.0, normal.inv_cdf(alpha) / normal.inv_cdf(resolved))


def upper_share(students: Floats, value: float) -> float:
    """Return the smallest error whose quantile of the ascending `students` is below `value`."""
    below = int(np.searchsorted(students, value))
    if below == 0:
        return 1.0
    # The quantile of method "higher" at 1 - alpha is element ceil((1 - alpha) * (n - 1)).
    last = len(students) - 1
    share = 1 - (below - 1) / last
    if share > RESOLVED:
        return share
    quantile = _upper_quantile(students, RESOLVED)
    if not 0 < quantile < value:
        return RESOLVED
    return 0.5 * erfc(-value / quantile * NormalDist().inv_cdf(RESOLVED) / sqrt(2))


def _finite(value: float) -> float:
    return float(np.clip(value, -UNBOUNDED, UNBOUNDED))


def exact_bounds(
    differences: Sequence[float], alpha_lower: float, alpha_upper: float
) -> tuple[float, float]:
    """Return the same bounds for differences of pass-or-fail results: -1, 0 or 1.

    If nothing changed, the direction of each pair that differs is a coin toss (McNemar 1947; exact:
    the sign test). The bounds are those of the coin's probability (Clopper & Pearson 1934), as a
    difference over all pairs: the lower one is above zero exactly if the one-sided sign test is
    significant. If no pair differs, the bounds are -1 and 1.
    """
    wins = sum(value > 0 for value in differences)
    losses = sum(value < 0 for value in differences)
    n, differing = len(differences), wins + losses
    if differing == 0:
        return -1.0, 1.0
    won = clopper_pearson_lower(wins, differing, alpha_lower)
    lost = clopper_pearson_lower(losses, differing, alpha_upper)
    return (2 * won - 1) * differing / n, (1 - 2 * lost) * differing / n


def sign_test(differences: Sequence[float]) -> float:
    """Return the one-sided p-value of the sign test: the smallest error at which the lower bound of
    `exact_bounds` is above zero.
    """
    wins = sum(value > 0 for value in differences)
    differing = wins + sum(value < 0 for value in differences)
    return float(sum(comb(differing, k) for k in range(wins, differing + 1)) / 2**differing)


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """Return the lower bound of a probability: the largest one for which at least `successes` in
    `trials` have a probability of at most `alpha`.
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(
            comb(trials, k) * middle**k * (1 - middle) ** (trials - k)
            for k in range(successes, trials + 1)
        )
        low, high = (middle, high) if tail <= alpha else (low, middle)
    return low
