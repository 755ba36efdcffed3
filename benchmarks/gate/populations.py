"""Populations of candidates for simulated lives: one per customer.

Kinds of candidates, by their true gain in nats per answer token: *real* gains by `SMALL_GAIN` or
more, *harmful* ones are worse by `SMALL_GAIN` or more. *Null* candidates are disturbed champions in
between, shifted to a true gain of exactly the gate's `improvement_margin`, the least that a
promotion claims: no null candidate is more likely to be promoted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.gate.candidates import NEW_HELD_OUT, Trials
from benchmarks.gate.promotion_rules import Bools
from benchmarks.gate.tables import SMALL_GAIN
from services.trainer.gate.confidence_bounds import Floats
from shared.config.gate import GateSettings

REAL, NULL, HARMFUL = range(3)
LEAST_REAL = 10
"""A customer whose candidates have fewer real gains than this has no life."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """The candidates of one customer, a column each: differences to the champion on the same
    prompts, and on held-out examples from the source of the candidate's batch. A candidate that
    forgets is worse than the base on the regression set.
    """

    differences: Floats
    new_held_out: Floats
    kinds: Integers
    forgets: Bools

    @property
    def true_gains(self) -> Floats:
        return np.asarray(self.differences.mean(axis=0))


def population_of(trials: Trials, gate: GateSettings) -> Population | None:
    """Return the population of a customer, None with too few real gains."""
    columns: list[tuple[Floats, Floats, int, bool]] = []
    for candidate in trials.candidates:
        gain = candidate.result.true_gain
        forgets = bool(candidate.regression.mean() < -gate.regression_margin)
        if abs(gain) >= SMALL_GAIN:
            kind = REAL if gain > 0 else HARMFUL
            columns.append((candidate.unseen, candidate.new_held_out, kind, forgets))
    for differences in trials.disturbed.T:
        gain = float(differences.mean())
        if abs(gain) < SMALL_GAIN:
            null = differences - gain + gate.improvement_margin
            columns.append((null, null[-NEW_HELD_OUT:], NULL, False))
    kinds = np.array([kind for _, _, kind, _ in columns])
    if (kinds == REAL).sum() < LEAST_REAL:
        return None
    return Population(
        np.stack([differences for differences, *_ in columns], axis=1),
        np.stack([new for _, new, *_ in columns], axis=1),
        kinds,
        np.array([forgets for *_, forgets in columns]),
    )


def normal_population(seed: int, gate: GateSettings, gain: float = 0.05) -> Population:
    """Return candidates with normal differences of standard deviation 0.1, which load on five
    factors of the prompts that all candidates share (30 % of the variance). Real ones gain `gain`,
    harmful ones lose as much.
    """
    random = np.random.default_rng(seed)
    prompts, members = 1000, (40, 120, 40)
    kinds = np.repeat(np.arange(3), members)
    gains = np.array([gain, gate.improvement_margin, -gain])[kinds]
    loadings = random.normal(0, np.sqrt(0.3 / 5), (5, len(kinds)))
    noise = random.normal(0, np.sqrt(0.7), (prompts, len(kinds)))
    differences = random.normal(0, 1, (prompts, 5)) @ loadings + noise
    differences -= differences.mean(axis=0)
    differences *= 0.1 / differences.std(axis=0)
    differences += gains
    return Population(
        differences, differences[-NEW_HELD_OUT:], kinds, np.zeros(len(kinds), dtype=np.bool_)
    )
