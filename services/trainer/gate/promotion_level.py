"""Error that a gate may spend on a wrong promotion: online control of the false discovery rate.

The procedure is ADDIS (Tian and Ramdas 2019, arXiv:1905.11465, algorithm 1). With alpha = 1 -
confidence, the gate after the past gates 1 ... n may spend

    level = min(lambda, (tau - lambda) * alpha * (g(1 + A(0)) + sum over j >= 2 of g(1 + A(t_j))))

- t_j: the gate of promotion j. Every promotion but the first earns alpha.
- A(t): how many gates after t count: those whose p-value is above lambda and at most tau. A clear
  gain costs nothing, nor does a candidate that is nowhere near a gain.
- g(k) = k^-1.6 / zeta(1.6): how wealth is spread over the gates that follow; it adds up to 1.
- lambda = alpha, so that no gate spends more than alpha; tau = 1/2.

With p-values that are independent under the null hypothesis, the expected share of wrong ones among
all promotions is at most alpha at any time. The p-values of one model depend on one another through
the reused golden set; docs/gate.md gives what was measured with it. The power-law g was chosen by
simulation (`benchmarks.gate.promotion_rules`).

`evaluation_share` divides the level of a gate among repeated evaluations of its candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.events import Digest

DISCARDED = 0.5
"""Tau: larger p-values cost nothing."""
_POWER, _ZETA = 1.6, 2.2857656657
_FIRST_SHARE = 0.9


@dataclass(frozen=True)
class PastGate:
    """A gate of the model. `p_value` is None if the outcome does not tell, as those of Ratchet 0.1:
    a gate that did not promote then counts in full. `golden` is the digest of the golden examples.
    """

    promoted: bool
    p_value: float | None = None
    golden: Digest | None = None

    def counts(self, alpha: float) -> bool:
        if self.promoted:
            return False
        return self.p_value is None or alpha < self.p_value <= DISCARDED


def promotion_level(past: Sequence[PastGate], confidence: float) -> float:
    """Return the error that the gate after `past` may spend, in the order of time."""
    alpha = 1 - confidence
    counted, after = 0, list[int]()
    for gate in past:
        if gate.promoted:
            after.append(counted)
        counted += gate.counts(alpha)
    wealth = _share(counted) + sum(_share(counted - before) for before in after[1:])
    return min(alpha, (DISCARDED - alpha) * alpha * wealth)


def evaluation_share(evaluation: int) -> float:
    """Return the share of a gate's level that evaluation `evaluation` (from 1) of its candidate may
    spend: 9 / 10^evaluation, which adds up to 1. A candidate is rarely evaluated again.
    """
    return _FIRST_SHARE * (1 - _FIRST_SHARE) ** (evaluation - 1)


def _share(counted: int) -> float:
    """Return g(1 + counted)."""
    return float((1 + counted) ** -_POWER / _ZETA)
