"""P-values of the gate's bounds, for many candidates on the same examples at once."""

import numpy as np

from services.trainer.gate.confidence_bounds import RESAMPLES, Floats, upper_share


def bound_p_values(differences: Floats, margin: float, seed: int) -> Floats:
    """Return for each column (one candidate, a row per example) the smallest error at which the
    lower bound of `bootstrap_bounds` is above `margin`.

    The resamples are those of `bootstrap_bounds` with the same seed, so the inversion is exact but
    for the rounding of sums. Columns without variation, or without any sufficient error, get
    0 or 1.
    """
    n, candidates = differences.shape
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    weights = np.zeros((RESAMPLES, n))
    np.add.at(weights, (np.arange(RESAMPLES)[:, None], drawn), 1)
    means, errors = differences.mean(axis=0), differences.std(axis=0, ddof=1) / np.sqrt(n)
    centred = differences - means
    shifts = weights @ centred / n
    variances = np.maximum(weights @ centred**2 / n - shifts**2, 0) / (n - 1)
    resampled = np.sqrt(variances)
    p_values = np.ones(candidates)
    for column in range(candidates):
        error = errors[column]
        if error == 0:
            p_values[column] = float(means[column] <= margin)
            continue
        degenerate = resampled[:, column] < error * 1e-9
        students = np.where(
            degenerate,
            np.copysign(np.inf, shifts[:, column]),
            shifts[:, column] / np.where(degenerate, 1.0, resampled[:, column]),
        )
        p_values[column] = upper_share(np.sort(students), (means[column] - margin) / error)
    return p_values
