"""Error that each gate of a life may spend: values derived by hand, and the invariant of ADDIS."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate.promotion_rules import CHOSEN, FIRST_EVALUATION, PastGates
from services.trainer.gate.promotion_level import (
    DISCARDED,
    PastGate,
    evaluation_share,
    promotion_level,
)

ZETA = sum(k**-1.6 for k in range(1, 100_000)) + 100_000**-0.6 / 0.6
FIRST = 0.45 * 0.05 / ZETA
"""(tau - lambda) * alpha * g(1) with tau = 0.5, lambda = alpha = 0.05."""

PROMOTED, UNKNOWN = PastGate(True, 1e-5), PastGate(False)
COUNTED, CLOSE, HOPELESS = (PastGate(False, p_value) for p_value in (0.2, 0.04, 0.9))


def level(*past: PastGate) -> float:
    return promotion_level(past, 0.95)


def test_levels_derived_by_hand() -> None:
    """g(2) = 2^-1.6 g(1). The first promotion earns nothing, the second one g(1)."""
    assert level() == pytest.approx(FIRST, rel=1e-4)
    assert level(COUNTED) == pytest.approx(FIRST * 2**-1.6, rel=1e-4)
    assert level(PROMOTED) == pytest.approx(FIRST, rel=1e-4)
    assert level(PROMOTED, PROMOTED) == pytest.approx(2 * FIRST, rel=1e-4)
    assert level(PROMOTED, COUNTED, PROMOTED) == pytest.approx(FIRST * (1 + 2**-1.6), rel=1e-4)


def test_only_gates_between_lambda_and_tau_count() -> None:
    assert level(CLOSE) == level(HOPELESS) == level()
    assert level(UNKNOWN) == level(COUNTED) < level()


def test_no_gate_spends_more_than_alpha() -> None:
    assert level(*[PROMOTED] * 50) == pytest.approx(0.05)


def test_power_survives_a_thousand_gates() -> None:
    """One gain in ten gates, the others count: never below a hundredth of the first level."""
    past = [PROMOTED if gate % 10 == 0 else COUNTED for gate in range(1000)]
    assert min(level(*past[:gate]) for gate in range(0, 1000, 7)) > FIRST / 100


def test_evaluations_of_a_candidate_share_one_level() -> None:
    assert evaluation_share(1) == pytest.approx(0.9)
    assert sum(map(evaluation_share, range(1, 30))) == pytest.approx(1)


GATES = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60)


@given(GATES, st.floats(0.6, 0.99))
def test_estimated_false_share_stays_within_alpha(
    rows: Sequence[tuple[bool, float]], confidence: float
) -> None:
    """Tian and Ramdas 2019, equation 6: the levels of the gates that count, over tau - lambda, add
    up to at most alpha times the promotions, or to alpha.
    """
    alpha, past, spent = 1 - confidence, list[PastGate](), 0.0
    for wanted, p_value in rows:
        allowed = promotion_level(past, confidence)
        gate = PastGate(wanted and p_value <= allowed, p_value)
        spent += allowed * gate.counts(alpha) / (DISCARDED - alpha)
        past.append(gate)
        promotions = sum(row.promoted for row in past)
        assert spent <= alpha * max(1, promotions) + 1e-9


def test_level_is_that_of_the_simulated_rule() -> None:
    """The benchmark simulates the same rule for many lives at once."""
    random = np.random.default_rng(2)
    p_values = np.where(random.random(80) < 0.3, 1e-4, 1.0) * random.random(80)
    past: list[PastGate] = []
    for p_value in p_values.tolist():
        simulated = CHOSEN(
            PastGates(
                np.array([[row.p_value for row in past]], dtype=np.float64),
                np.array([[row.promoted for row in past]], dtype=np.bool_),
            )
        )
        allowed = promotion_level(past, 0.95) * FIRST_EVALUATION
        assert simulated[0] == pytest.approx(allowed, rel=1e-4)
        past.append(PastGate(p_value <= allowed, p_value))
    assert any(row.promoted for row in past)
