"""Confidence bounds: values derived by hand, and their stated error rate."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.gate.confidence_bounds import (
    UNBOUNDED,
    bootstrap_bounds,
    clopper_pearson_lower,
    exact_bounds,
)

PASSED = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=40)


def test_bounds_match_student_for_normal_differences() -> None:
    """For n = 40 normal values Student's 97.5 % point is 2.023, so each bound is 2.023 standard
    errors from the mean.
    """
    values = np.random.default_rng(3).normal(0.1, 1.0, 40)
    error = float(values.std(ddof=1)) / sqrt(40)
    lower, upper = bootstrap_bounds(values.tolist(), 0.025, 0.025, seed=7)
    assert (float(values.mean()) - lower) / error == pytest.approx(2.02, abs=0.25)
    assert (upper - float(values.mean())) / error == pytest.approx(2.02, abs=0.25)


@given(st.lists(st.floats(-5, 5), max_size=30), st.floats(1e-7, 0.2), st.integers(0, 2**32 - 1))
def test_bounds_are_finite_and_contain_the_mean(
    differences: list[float], alpha: float, seed: int
) -> None:
    lower, upper = bootstrap_bounds(differences, alpha, alpha, seed)
    mean = float(np.mean(differences)) if differences else 0.0
    assert -inf < lower <= mean + 1e-9
    assert mean - 1e-9 <= upper < inf


def test_bounds_widen_as_alpha_shrinks() -> None:
    differences = [0.1 + 0.3 * (2 * index / 19 - 1) for index in range(20)]
    lowers = [
        bootstrap_bounds(differences, alpha, 0.05, seed=1)[0]
        for alpha in (0.05, 0.01, 0.001, 1e-4, 1e-6)
    ]
    assert lowers == sorted(lowers, reverse=True)
    assert len(set(lowers)) == len(lowers)


def test_one_example_gives_no_bound() -> None:
    assert bootstrap_bounds([1.0], 0.05, 0.05, seed=1) == (-UNBOUNDED, UNBOUNDED)


def test_clopper_pearson_bound_of_all_successes() -> None:
    """Five successes of five have the probability p^5, which is 1/32 for p = 1/2."""
    assert clopper_pearson_lower(5, 5, 1 / 32) == pytest.approx(0.5)
    assert clopper_pearson_lower(0, 5, 0.05) == 0


def test_exact_bounds_of_five_wins() -> None:
    """Five pairs of ten differ, all for the better. With alpha = 1/32 the coin's probability is at
    least 1/2, so the lower bound is zero. With 1/16 it is at least (1/16)^(1/5) = 0.5743, and
    (2 · 0.5743 - 1) · 5/10 = 0.0743.
    """
    differences = [1.0] * 5 + [0.0] * 5
    assert exact_bounds(differences, 1 / 32, 0.05)[0] == pytest.approx(0.0, abs=1e-9)
    assert exact_bounds(differences, 1 / 16, 0.05)[0] == pytest.approx(0.0743, abs=1e-4)


@given(PASSED, st.floats(1e-4, 0.3))
def test_exact_bounds_are_antisymmetric(differences: list[float], alpha: float) -> None:
    lower, upper = exact_bounds(differences, alpha, alpha)
    assert exact_bounds([-value for value in differences], alpha, alpha) == (-upper, -lower)
    assert -1 <= lower <= upper <= 1


def test_exact_bounds_keep_their_error_rate() -> None:
    """If nothing changed, the probability of a lower bound above zero is the sum of the binomial
    probabilities (1/2)^n C(n, k) over the wins k that give one. It is at most alpha for any number
    of pairs that differ.
    """
    for differing in range(1, 25):
        significant = [
            k
            for k in range(differing + 1)
            if exact_bounds([1.0] * k + [-1.0] * (differing - k), 0.05, 0.05)[0] > 1e-9
        ]
        counts = np.random.default_rng(differing).binomial(differing, 0.5, 20_000)
        # Three standard deviations of a share of 0.05 in 20,000 draws are 0.0046.
        assert np.isin(counts, significant).mean() <= 0.05 + 0.0046
