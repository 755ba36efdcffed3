"""Budget of a verdict: what it could spend, and what it lacked."""

import pytest

from services.trainer.gate.budget import GateHistory, with_budget
from services.trainer.gate.decision import decide
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.gate.promotion_level import PastGate
from shared.config.gate import GateSettings
from shared.events import PromotionBudget, Verdict
from tests.support.tickets import DIGEST

GATE = GateSettings(minimum_examples=5)
NOTHING = PairedScores((), ())
PAST = GateHistory([PastGate(False, 0.2, DIGEST), PastGate(True, 1e-5), PastGate(False, 1, DIGEST)])


def verdict_on(
    golden: list[float], held_out: list[float] | None = None, history: GateHistory = PAST
) -> Verdict:
    """Return the verdict on differences to a champion that scores -1 everywhere."""
    first, second = (
        PairedScores([-1.0] * len(differences), [d - 1.0 for d in differences])
        for differences in (held_out or [], golden)
    )
    level = history.level(0.95, evaluation=1)
    verdict = decide(GateEvidence(first, second, NOTHING, (), ()), GATE, "v1", level, seed=1)
    return with_budget(verdict, level, history, GATE, DIGEST if golden else None)


def budget_of(verdict: Verdict) -> PromotionBudget:
    assert verdict.budget is not None
    return verdict.budget


def spread_around(mean: float, count: int = 24, spread: float = 0.1) -> list[float]:
    return [mean + spread * (2 * index / (count - 1) - 1) for index in range(count)]


def test_inconclusive_verdict_says_what_was_missing() -> None:
    verdict = verdict_on(spread_around(0.02))
    budget = budget_of(verdict)
    assert verdict.decision == "inconclusive"
    assert budget.gate == 4
    assert budget.needed_on == "golden"
    assert budget.needed_examples
    assert budget.needed_gain
    assert verdict.reasons[-1] == (
        f"gate 4 of this model could spend an error of {budget.level:.2g}, the next one may spend "
        f"{budget.next_level:.2g}; about {budget.needed_examples} more golden examples, or a gain "
        f"of {budget.needed_gain:+.4f} on golden would have been enough"
    )


def test_proposed_gain_and_examples_would_promote() -> None:
    """The gain with a per cent more promotes; the examples do with the same values repeated."""
    differences = spread_around(0.02)
    budget = budget_of(verdict_on(differences))
    assert budget.needed_gain is not None
    assert budget.needed_examples is not None
    shift = budget.needed_gain * 1.01 - 0.02
    assert verdict_on([value + shift for value in differences]).decision == "promote"
    copies = -(-(24 + budget.needed_examples) // 24)
    assert verdict_on(differences * copies).decision == "promote"
    assert verdict_on(differences * max(1, copies // 2)).decision == "inconclusive"


def test_gain_below_the_margin_has_no_number_of_examples() -> None:
    budget = budget_of(verdict_on(spread_around(0.004)))
    assert budget.needed_examples is None
    assert budget.needed_gain is not None


def test_held_out_is_named_without_a_golden_set() -> None:
    verdict = verdict_on([], held_out=spread_around(0.02))
    assert budget_of(verdict).needed_on == "held_out"
    assert budget_of(verdict).golden_decisions == 0
    assert "held-out examples" in verdict.reasons[-1]


def test_promotion_and_rejection_need_nothing() -> None:
    promoted, rejected = verdict_on(spread_around(0.3)), verdict_on(spread_around(-0.3))
    assert (promoted.decision, rejected.decision) == ("promote", "reject")
    for verdict in (promoted, rejected):
        assert budget_of(verdict).needed_gain is None
        assert not any("could spend" in reason for reason in verdict.reasons)
    assert rejected.p_value == 1
    assert budget_of(promoted).next_level > budget_of(rejected).next_level


def test_decisions_with_the_same_golden_set_are_counted() -> None:
    assert budget_of(verdict_on(spread_around(0.02))).golden_decisions == 3


@pytest.mark.parametrize("mean", [0.015, 0.03, 0.06, 0.1])
def test_p_value_is_the_smallest_error_that_promotes(mean: float) -> None:
    scores = PairedScores([-1.0] * 24, [d - 1.0 for d in spread_around(mean)])
    evidence = GateEvidence(scores, scores, NOTHING, (), ())
    p_value = decide(evidence, GATE, "v1", 0.01, seed=1).p_value
    assert p_value is not None
    decisions = [
        decide(evidence, GATE, "v1", p_value + step, seed=1).decision
        for step in (-min(4e-4, p_value / 50), 4e-4)
    ]
    assert decisions == ["inconclusive", "promote"]


@pytest.mark.parametrize("decisions", [199, 200])
def test_verdict_asks_for_new_golden_examples_in_time(decisions: int) -> None:
    history = GateHistory([PastGate(False, 1, DIGEST)] * (decisions - 1))
    reasons = verdict_on(spread_around(0.3), history=history).reasons
    worn = f"golden set is worn: {decisions} decisions; add new golden examples"
    assert (worn in reasons) == (decisions == 200)
