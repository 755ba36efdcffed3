"""Budget of a verdict: the error that it could spend, and the evidence that it lacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from services.trainer.gate.findings import label
from services.trainer.gate.promotion_level import PastGate, evaluation_share, promotion_level
from shared.config.gate import GateSettings
from shared.events import Digest, PromotionBudget, Verdict

WORN_DECISIONS = 200
"""Number of decisions from which on verdicts ask for new golden examples."""
MOST_EXAMPLES = 10_000
"""More examples than this are not worth a proposal."""


@dataclass(frozen=True)
class GateHistory:
    """The gates of a model before the present one, in the order of time."""

    past: Sequence[PastGate] = ()

    @property
    def number(self) -> int:
        """Number of the present gate, from 1."""
        return len(self.past) + 1

    def level(self, confidence: float, evaluation: int) -> float:
        """Return the error that an evaluation at the present gate may spend."""
        return promotion_level(self.past, confidence) * evaluation_share(evaluation)


def with_budget(
    verdict: Verdict,
    level: float,
    history: GateHistory,
    gate: GateSettings,
    golden: Digest | None,
) -> Verdict:
    """Return the verdict with its budget and, if it is inconclusive, a reason that says what would
    have been needed. `level` is the error that the evaluation could spend; `golden` is the digest
    of the golden examples, None without any.
    """
    present = PastGate(verdict.decision == "promote", verdict.p_value, golden)
    gates = [*history.past, present]
    needed = _needed(verdict, gate) if verdict.decision == "inconclusive" else None
    budget = PromotionBudget(
        gate=history.number,
        level=level,
        next_level=promotion_level(gates, gate.confidence),
        needed_on=needed.name if needed else None,
        needed_gain=needed.gain if needed else None,
        needed_examples=needed.examples if needed else None,
        golden_digest=golden,
        golden_decisions=sum(row.golden == golden for row in gates) if golden else 0,
    )
    reasons = verdict.reasons
    if verdict.decision == "inconclusive":
        reasons = (*reasons, _text(budget))
    if budget.golden_decisions >= WORN_DECISIONS:
        worn = f"golden set is worn: {budget.golden_decisions} decisions; add new golden examples"
        reasons = (*reasons, worn)
    return verdict.model_copy(update={"budget": budget, "reasons": reasons})


@dataclass(frozen=True)
class _Needed:
    """Evidence that would have promoted: a measured gain, or a number of further examples with the
    gain as measured; None if no number of them is worth a proposal.
    """

    name: Literal["held_out", "golden"]
    gain: float
    examples: int | None


def _needed(verdict: Verdict, gate: GateSettings) -> _Needed | None:
    """Return what the golden set lacks, or held-out without a golden set; None if evidence is not
    what the candidate lacks. Half the spread of the bound needs four times the examples.
    """
    rows = {row.name: row for row in verdict.comparisons}
    name: Literal["held_out", "golden"] = "golden" if rows["golden"].examples else "held_out"
    row = rows[name]
    spread = row.difference - row.lower
    objects = any(each.difference < -each.margin for each in verdict.comparisons)
    if objects or row.examples < 2 or row.lower > gate.improvement_margin:
        return None
    above_margin = row.difference - gate.improvement_margin
    if above_margin <= 0:
        return _Needed(name, gate.improvement_margin + spread, None)
    total = max(gate.minimum_examples, ceil(row.examples * (spread / above_margin) ** 2))
    further = total - row.examples
    return _Needed(
        name, gate.improvement_margin + spread, further if further <= MOST_EXAMPLES else None
    )


def _text(budget: PromotionBudget) -> str:
    text = (
        f"gate {budget.gate} of this model could spend an error of {budget.level:.2g}, the next "
        f"one may spend {budget.next_level:.2g}"
    )
    if budget.needed_gain is None or budget.needed_on is None:
        return text
    examples = (
        f"about {budget.needed_examples} more {label(budget.needed_on)} examples, or "
        if budget.needed_examples
        else ""
    )
    gain = f"a gain of {budget.needed_gain:+.4f} on {label(budget.needed_on)}"
    return f"{text}; {examples}{gain} would have been enough"
