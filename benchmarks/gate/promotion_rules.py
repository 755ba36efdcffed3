"""Online procedures that decide how much error each gate of a life may spend, for many lives at
once.

Rows are lives, columns are past gates. `spending` is a sequence of shares that add up to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.trainer.gate.confidence_bounds import Floats

GATES = 1000
ALPHA = 0.05
FIRST_EVALUATION = 0.9
"""Share of a gate's error that the first evaluation of a candidate may spend."""
POWER = 1.6
"""Exponent of `spending`: slow enough for long waits, fast enough for a strong first gate."""
MEMORY = 0.99
"""Factor by which a procedure with memory discounts each gate (Ramdas et al. 2017)."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PastGates:
    """The gates so far of each life: their p-values and promotions."""

    p_values: Floats
    promoted: Bools

    @property
    def count(self) -> int:
        return len(self.p_values[0])


Rule = Callable[[PastGates], Floats]
"""Returns the error that the next gate of each life may spend."""


def spending(power: float = POWER) -> Floats:
    """Return j^-power, scaled to add up to 1 over all j from 1; `GATES` of them."""
    counts = np.arange(1, 20 * GATES + 1, dtype=np.float64)
    shares = counts**-power
    rest = counts[-1] ** (1 - power) / (power - 1)
    return np.asarray(shares[:GATES] / (shares.sum() + rest))


SHARES = spending()


def alpha_spending(past: PastGates) -> Floats:
    """Ratchet 0.1: gate k of a life may spend 6 / (π² k²) of the whole, the first evaluation of a
    candidate 6 / π² of that.
    """
    return np.full(len(past.p_values), ALPHA * (6 / np.pi**2 / (past.count + 1)) ** 2)


@dataclass(frozen=True)
class Adaptive:
    """ADDIS (Tian and Ramdas 2019, arXiv:1905.11465). `candidate` is its lambda: gates with a
    smaller p-value cost nothing. `discarded` is its tau: nor do gates with a larger one. SAFFRON
    (Ramdas et al. 2018, arXiv:1802.09098) discards none; LORD++ (Ramdas et al. 2017,
    arXiv:1710.00499) has no candidates either. With `memory`, past promotions count less and less,
    and the first share never falls below what memory frees (Rebjock et al. 2021).
    """

    candidate: float = 0.0
    discarded: float = 1.0
    start: float = ALPHA
    memory: float | None = None

    def __call__(self, past: PastGates) -> Floats:
        lives, count = past.p_values.shape
        first_shares = SHARES if self.memory is None else self._shares_with_memory
        if count == 0:
            return self._level(np.full(lives, self.start * first_shares[0]))
        p_values = past.p_values
        is_active = p_values <= self.discarded
        if self.candidate:
            is_active &= p_values > self.candidate
        active = np.cumsum(is_active, axis=1)
        total = active[:, -1]
        earned = np.where(past.promoted, SHARES[total[:, None] - active], 0.0)
        if self.memory is not None:
            earned *= self.memory ** (count - np.arange(count))
            return self._level(ALPHA * (first_shares[total] + earned.sum(axis=1)))
        first = earned[np.arange(lives), past.promoted.argmax(axis=1)]
        return self._level(
            self.start * first_shares[total] + ALPHA * earned.sum(axis=1) - self.start * first
        )

    @property
    def _shares_with_memory(self) -> Floats:
        assert self.memory is not None
        return np.maximum(SHARES, 1 - self.memory)

    def _level(self, wealth: Floats) -> Floats:
        level = (self.discarded - self.candidate) * wealth
        return FIRST_EVALUATION * np.minimum(self.candidate or 1.0, level)


def lond(past: PastGates) -> Floats:
    """LOND (Javanmard and Montanari 2018): with p-values it holds under positive dependence
    (Zrnic et al. 2021).
    """
    level = ALPHA * spending(1.1)[past.count] * (past.promoted.sum(axis=1) + 1)
    return np.asarray(FIRST_EVALUATION * level)


def e_lond(past: PastGates) -> Floats:
    """e-LOND (Xu and Ramdas 2024, arXiv:2311.06412), which holds under any dependence, on e-values
    calibrated from p-values (Vovk and Wang 2021): a p-value is small enough when
    (1 - p + p ln p) / (p ln² p) is at least 1 / level.
    """
    p_values = np.exp(-np.linspace(0.7, 40, 4000))
    logs = np.log(p_values)
    e_values = (1 - p_values + p_values * logs) / (p_values * logs**2)
    return np.asarray(np.interp(-np.log(lond(past)), np.log(e_values), p_values))


CHOSEN = Adaptive(candidate=ALPHA, discarded=0.5)
RULES: dict[str, Rule] = {
    "alpha spending": alpha_spending,
    "LORD++": Adaptive(start=ALPHA / 2),
    "LORD++, memory": Adaptive(memory=MEMORY),
    "SAFFRON": Adaptive(candidate=0.5, start=ALPHA / 2),
    "SAFFRON, memory": Adaptive(candidate=0.5, memory=MEMORY),
    "ADDIS": Adaptive(candidate=0.25, discarded=0.5, start=ALPHA / 2),
    "ADDIS, memory": Adaptive(candidate=0.25, discarded=0.5, memory=MEMORY),
    "LOND": lond,
    "e-LOND": e_lond,
    "chosen": CHOSEN,
}
