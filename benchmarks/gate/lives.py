"""Simulated lives of a model: a thousand gates each, on one golden set that never changes.

A life belongs to one customer of `bench_gate`. Its golden set and its earlier
held-out examples are drawn once, and every candidate of the customer is scored on them: candidates
of one life depend on one another as in production. Each gate draws a candidate of its mixture, and
judges it as `decide` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.gate.p_values import bound_p_values
from benchmarks.gate.populations import NULL, REAL, Integers, Population
from benchmarks.gate.promotion_rules import GATES, Bools, PastGates, Rule
from services.trainer.gate.confidence_bounds import Floats
from shared.config.gate import GateSettings

GOLDEN, EARLIER_HELD_OUT, NEW_HELD_OUT = 32, 55, 5
HARMFUL_SHARE = 0.1
"""Share of harmful candidates among all but real gains."""
NULLS, GAINS_AFTER = 100, 10


@dataclass(frozen=True)
class Life:
    """The candidates of a population on the golden and held-out examples of one life."""

    p_values: Floats
    golden_gains: Floats
    true_gains: Floats
    kinds: Integers

    @property
    def real_p_values(self) -> Floats:
        """Sorted p-values of all real gains."""
        return np.sort(self.p_values[self.kinds == REAL])


@dataclass(frozen=True)
class Mixture:
    """Candidates that the gates of a life judge. From gate `nulls_from` on, 100 null candidates
    follow one another, then ten real gains.
    """

    real_share: float
    nulls_from: int | None = None


@dataclass(frozen=True)
class Outcomes:
    """Gates of many lives, a row each: kinds and indices of the candidates, the error that could be
    spent, and the promotions.
    """

    kinds: Integers
    candidates: Integers
    levels: Floats
    promoted: Bools

    def false_share(self, gate: int = GATES) -> Floats:
        """Return the share of false ones among the promotions of the first gates, for each life."""
        promoted = self.promoted[:, :gate]
        false = promoted & (self.kinds[:, :gate] != REAL)
        return np.asarray(false.sum(axis=1) / np.maximum(1, promoted.sum(axis=1)))


def begin_life(population: Population, seed: int, gate: GateSettings) -> Life:
    """Draw the golden and held-out examples of a life, and judge every candidate on them.

    The p-value of a candidate is the smallest error of one gate at which `decide` would promote it,
    1 if it objects: golden and held-out share the error, and held-out alone is not enough.
    """
    random = np.random.default_rng(seed)
    prompts = len(population.differences)
    golden = population.differences[random.choice(prompts, GOLDEN, replace=False)]
    earlier = population.differences[random.choice(prompts, EARLIER_HELD_OUT, replace=False)]
    new = random.permuted(population.new_held_out, axis=0)[:NEW_HELD_OUT]
    held_out = np.concatenate([earlier, new])
    on_golden = bound_p_values(golden, gate.improvement_margin, seed)
    not_worse = bound_p_values(golden, -gate.harm_margin, seed)
    on_held_out = bound_p_values(held_out, gate.improvement_margin, seed + 1)
    ways = np.minimum(on_golden, np.maximum(on_held_out, not_worse))
    objects = population.forgets.copy()
    for differences in (golden, held_out):
        objects |= differences.mean(axis=0) < -gate.harm_margin
    return Life(
        np.where(objects, 1.0, np.minimum(1.0, 2 * ways)),
        np.asarray(golden.mean(axis=0)),
        population.true_gains,
        population.kinds,
    )


def simulate(lives: Sequence[Life], mixture: Mixture, rule: Rule, seed: int) -> Outcomes:
    """Run the gates of all lives under a rule. The same seed draws the same candidates."""
    kinds, candidates = _draw(lives, mixture, np.random.default_rng(seed))
    p_values = np.stack([life.p_values[row] for life, row in zip(lives, candidates, strict=True)])
    levels, promoted = np.zeros(p_values.shape), np.zeros(p_values.shape, dtype=np.bool_)
    for gate in range(GATES):
        levels[:, gate] = rule(PastGates(p_values[:, :gate], promoted[:, :gate]))
        promoted[:, gate] = p_values[:, gate] <= levels[:, gate]
    return Outcomes(kinds, candidates, levels, promoted)


def power(lives: Sequence[Life], levels: Floats) -> float:
    """Return the share of the lives' real gains that gates with these errors promote."""
    shares = [
        np.searchsorted(p_values, level, side="right") / len(p_values)
        for p_values, level in zip((life.real_p_values for life in lives), levels, strict=True)
    ]
    return float(np.mean(shares))


def _draw(
    lives: Sequence[Life], mixture: Mixture, random: np.random.Generator
) -> tuple[Integers, Integers]:
    harmful = HARMFUL_SHARE * (1 - mixture.real_share)
    shares = (mixture.real_share, 1 - mixture.real_share - harmful, harmful)
    kinds = random.choice(3, (len(lives), GATES), p=shares)
    if mixture.nulls_from is not None:
        end = mixture.nulls_from + NULLS
        kinds[:, mixture.nulls_from : end] = NULL
        kinds[:, end : end + GAINS_AFTER] = REAL
    candidates = np.zeros(kinds.shape, dtype=np.int64)
    for row, life in enumerate(lives):
        for kind in range(3):
            places = kinds[row] == kind
            members = np.flatnonzero(life.kinds == kind)
            candidates[row, places] = random.choice(members, int(places.sum()))
    return kinds, candidates
