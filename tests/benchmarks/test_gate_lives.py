"""Simulated lives of the gate benchmark: p-values, promotion rules, and power by age."""

import numpy as np
import pytest

from benchmarks.gate.life_figures import SOME
from benchmarks.gate.lives import begin_life, power, simulate
from benchmarks.gate.p_values import bound_p_values
from benchmarks.gate.populations import REAL, normal_population
from benchmarks.gate.promotion_rules import (
    ALPHA,
    CHOSEN,
    GATES,
    Adaptive,
    Bools,
    PastGates,
    Rule,
    alpha_spending,
)
from services.trainer.gate.confidence_bounds import RESAMPLES, Floats, bootstrap_bounds
from shared.config.gate import GateSettings

GATE = GateSettings()


def run_gates(rule: Rule, p_values: Floats) -> tuple[Floats, Bools]:
    levels, promoted = np.zeros(p_values.shape), np.zeros(p_values.shape, dtype=np.bool_)
    for gate in range(p_values.shape[1]):
        levels[:, gate] = rule(PastGates(p_values[:, :gate], promoted[:, :gate]))
        promoted[:, gate] = p_values[:, gate] <= levels[:, gate]
    return levels, promoted


def test_p_value_is_the_smallest_error_of_the_bound() -> None:
    """Skewed and normal differences; a p-value beyond the resolution of the resamples as well."""
    random = np.random.default_rng(0)
    differences = np.concatenate(
        [
            random.normal(0.05, 0.1, (32, 6)),
            0.05 + 0.1 * (1 - random.exponential(1, (32, 6))),
            random.normal(0.12, 0.1, (32, 1)),
        ],
        axis=1,
    )
    p_values = bound_p_values(differences, 0.005, seed=3)
    assert p_values[-1] < 1e-3
    for column, p_value in zip(differences.T.tolist(), p_values.tolist(), strict=True):
        step = 1.5 / RESAMPLES if p_value > 10 / RESAMPLES else p_value / 1000
        at_less, at_more = (
            bootstrap_bounds(column, p_value + difference, 0.05, 3)[0]
            for difference in (-step, step)
        )
        assert at_less <= 0.005 + 1e-9
        assert at_more >= 0.005 - 1e-9


@pytest.mark.parametrize("rule", [CHOSEN, Adaptive(), Adaptive(candidate=0.5)])
def test_estimated_false_share_stays_within_alpha(rule: Adaptive) -> None:
    """The condition from which the procedures derive their guarantee, at every gate: the errors of
    the gates that count, over tau - lambda, add up to at most alpha times the promotions.
    """
    random = np.random.default_rng(1)
    p_values = np.where(random.random((20, 200)) < 0.3, 1e-4, 1.0) * random.random((20, 200))
    levels, promoted = run_gates(rule, p_values)
    counts = p_values <= rule.discarded
    if rule.candidate:
        counts &= p_values > rule.candidate
    spent = np.cumsum(np.where(counts, levels, 0), axis=1) / (rule.discarded - rule.candidate)
    assert promoted.sum() > 100
    assert (spent <= ALPHA * np.maximum(1, np.cumsum(promoted, axis=1)) + 1e-12).all()


def test_fixed_error_jams_and_the_chosen_rule_does_not() -> None:
    lives = [begin_life(normal_population(seed, GATE, gain=0.07), seed, GATE) for seed in range(2)]
    former, chosen = (
        [power(lives, simulate(lives, SOME, rule, 1).levels[:, gate]) for gate in (0, GATES - 1)]
        for rule in (alpha_spending, CHOSEN)
    )
    assert former[1] < 0.5 * former[0]
    assert chosen[1] > 0.9 * chosen[0]


def test_lives_of_a_rule_share_their_candidates() -> None:
    lives = [begin_life(normal_population(0, GATE), seed, GATE) for seed in range(2)]
    first, second = (simulate(lives, SOME, rule, 5) for rule in (alpha_spending, CHOSEN))
    assert (first.candidates == second.candidates).all()
    assert first.kinds.shape == (2, GATES)
    assert (first.kinds == REAL).mean() == pytest.approx(0.3, abs=0.05)
