"""The gate: hand-derived numbers, the error that it promises, and what it refuses."""

from collections.abc import Sequence
from math import inf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.gate import NO_BOUND, Evidence, Paired, bounds, judge, spent
from shared.events import Verdict
from shared.model_file import Gate

GATE = Gate(harm_margin=0.02, retention_margin=0.5, minimum_examples=5)
NOTHING = Paired((), ())

Scores = Sequence[float]


def decide(
    held_out: Scores = (),
    golden: Scores = (),
    retention: Scores = (),
    canaries: tuple[Sequence[bool], Sequence[bool]] = ((), ()),
    seed: int = 1,
) -> Verdict:
    """The verdict on differences, over a champion that scores -1 everywhere."""
    first, second, third = (
        Paired([-1.0] * len(differences), [d - 1.0 for d in differences]) for differences in (held_out, golden, retention)
    )
    return judge(Evidence(first, second, third, *canaries), GATE, "v1", alpha=0.05, seed=seed)


def around(mean: float, count: int = 20, spread: float = 0.05) -> list[float]:
    """Differences with a given mean, evenly spread."""
    return [mean + spread * (2 * place / (count - 1) - 1) for place in range(count)]


def test_the_error_of_all_gates_of_all_shards_adds_up_to_alpha() -> None:
    """The sum of 6 / (π² k²) over k is 1; a thousand terms leave less than 0.1 % of it."""
    total = sum(spent(0.95, gate, shards=4) for gate in range(1, 1000) for _ in range(4))
    evaluated = sum(spent(0.95, 1, evaluation) for evaluation in range(1, 1000))
    assert total < 0.05 * 36 / pi**4 * pi**2 / 6  # every gate evaluated once spends 6/π² of its part
    assert total == pytest.approx(0.05 * 6 / pi**2, rel=1e-3)
    assert evaluated == pytest.approx(0.05 * 6 / pi**2, rel=1e-3)
    assert spent(0.95, 1) == pytest.approx(0.05 * 36 / pi**4)


def test_bounds_are_those_of_student_for_normal_differences() -> None:
    """For n = 40 normal values Student's 97.5 % point is 2.023, so the bound lies 2.023 standard errors from the mean."""
    values = np.random.default_rng(3).normal(0.1, 1.0, 40)
    error = float(values.std(ddof=1)) / sqrt(40)
    lower, upper = bounds(values.tolist(), 0.025, 0.025, seed=7)
    assert (float(values.mean()) - lower) / error == pytest.approx(2.02, abs=0.25)
    assert (upper - float(values.mean())) / error == pytest.approx(2.02, abs=0.25)


@given(st.lists(st.floats(-5, 5), max_size=30), st.floats(1e-7, 0.2), st.integers(0, 2**32 - 1))
def test_bounds_hold_the_mean_between_them_and_are_finite(differences: list[float], alpha: float, seed: int) -> None:
    lower, upper = bounds(differences, alpha, alpha, seed)
    mean = float(np.mean(differences)) if differences else 0.0
    assert -inf < lower <= mean + 1e-9
    assert mean - 1e-9 <= upper < inf


def test_the_less_error_is_left_the_wider_are_the_bounds() -> None:
    differences = around(0.1, spread=0.3)
    lowers = [bounds(differences, alpha, 0.05, seed=1)[0] for alpha in (0.05, 0.01, 0.001, 1e-4, 1e-6)]
    assert lowers == sorted(lowers, reverse=True)
    assert len(set(lowers)) == len(lowers)


def test_one_example_gives_no_bound() -> None:
    assert bounds([1.0], 0.05, 0.05, seed=1) == (-NO_BOUND, NO_BOUND)


@pytest.mark.parametrize("examples", [8, 20, 60])
def test_candidates_that_are_no_better_are_seldom_promoted(examples: int) -> None:
    """Differences drawn around zero: of 400 verdicts at alpha = 0.05, 20 may err; 33 is three standard deviations above."""
    draw = np.random.default_rng(examples)
    verdicts = [
        decide(draw.normal(0, 0.01, examples).tolist(), draw.standard_t(5, examples).tolist(), seed=seed).decision for seed in range(400)
    ]
    assert verdicts.count("promote") <= 33


def test_candidates_that_are_better_are_promoted() -> None:
    verdict = decide(held_out=around(0.1), golden=around(0.0), retention=around(-0.1))
    assert verdict.decision == "promote"
    assert verdict.baseline_version == "v1"
    assert verdict.reasons[0].startswith("held-out: +0.1000 nats per token over 20 examples, at least +0.0")


def test_a_clear_improvement_on_golden_alone_is_enough() -> None:
    assert decide(golden=around(0.1)).decision == "promote"


def test_poisoned_batches_are_rejected() -> None:
    """They are better on held-out examples that are poisoned alike, and much worse on the golden set."""
    verdict = decide(held_out=around(1.0), golden=around(-0.5, spread=0.4))
    assert verdict.decision == "reject"
    assert verdict.reasons[0] == "golden: worse by 0.5000 nats per token over 20 examples, 0.0200 is allowed"


def test_poison_that_leaves_the_golden_set_uncertain_is_not_promoted() -> None:
    """Better on held-out examples, which may be poisoned alike; on the golden set no worse on average, but nobody can be sure."""
    verdict = decide(held_out=around(1.0), golden=around(0.0, spread=0.4))
    assert verdict.decision == "inconclusive"
    assert "held-out alone is not enough" in verdict.reasons[0]
    assert decide(held_out=around(1.0), golden=around(0.0, spread=0.01)).decision == "promote"


def test_harm_within_noise_blocks_and_does_not_condemn() -> None:
    verdict = decide(held_out=around(0.1), golden=[-0.4, 0.3, -0.2, 0.1])
    assert verdict.decision == "inconclusive"
    assert "to be sure" in verdict.reasons[0]


def test_forgetting_beyond_the_margin_is_rejected() -> None:
    assert decide(held_out=around(0.5), retention=around(-0.6)).decision == "reject"


def test_too_few_examples_are_inconclusive() -> None:
    verdict = decide(held_out=[1.0, 1.1, 0.9, 1.0])
    assert verdict.decision == "inconclusive"
    assert "4 examples, 5 are needed" in verdict.reasons[0]


def test_a_canary_that_newly_fails_rejects() -> None:
    verdict = decide(held_out=around(0.5), canaries=((True, True, False), (True, False, False)))
    assert verdict.decision == "reject"
    assert verdict.reasons[0] == "canaries: number 2 passed with v1 and fail with the candidate"
    assert verdict.comparisons[3].difference == pytest.approx(-1 / 3)


def test_a_canary_that_failed_before_does_not_block() -> None:
    assert decide(held_out=around(0.5), canaries=((False,), (False,))).decision == "promote"


def test_a_candidate_that_is_the_champion_is_inconclusive() -> None:
    assert decide(held_out=[0.0] * 50, golden=[0.0] * 50, retention=[0.0] * 9).decision == "inconclusive"


def test_nothing_to_compare_is_inconclusive() -> None:
    assert judge(Evidence(NOTHING, NOTHING, NOTHING, (), ()), GATE, "v0", alpha=0.05, seed=0).decision == "inconclusive"


@given(st.lists(st.floats(-2, 2), min_size=5, max_size=25), st.lists(st.floats(-2, 2), min_size=5, max_size=25))
def test_no_set_is_worse_than_its_margin_in_what_is_promoted(held_out: list[float], golden: list[float]) -> None:
    verdict = decide(held_out, golden)
    if verdict.decision == "promote":
        assert all(comparison.difference >= -comparison.margin - 1e-9 for comparison in verdict.comparisons)
    assert decide(held_out, golden) == verdict
