"""Figures of simulated lives: error over the life, power by age, harm, wear of the golden set."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.gate.lives import NULLS, Life, Mixture, power, simulate
from benchmarks.gate.populations import HARMFUL
from benchmarks.gate.promotion_rules import RULES, Rule
from benchmarks.gate.tables import table
from benchmarks.results import Result
from services.trainer.gate.confidence_bounds import Floats

RARE, SOME, MANY = Mixture(0.1), Mixture(0.3), Mixture(0.7)
STRETCH, NO_GAINS = Mixture(0.3, nulls_from=200), Mixture(0.0)
MIXTURES = (RARE, SOME, MANY, STRETCH)
AGES = (10, 30, 100, 300, 1000)
REAL_GAINS_AFTER = 5
SEED = 1

COMPARED = (
    "life_fdr",
    "life_fdr_no_gains",
    "power_first",
    "power_100",
    "power_1000",
    "power_1000_rare",
    "power_after_100_nulls",
)

RuleFigures = list[tuple[str, float, str]]
"""Metric, value and unit."""


class LifeFigures:
    """The figures of one rule over the same lives."""

    def __init__(self, lives: Sequence[Life], rule: Rule) -> None:
        self._lives = lives
        self._outcomes = {
            mixture: simulate(lives, mixture, rule, SEED) for mixture in (*MIXTURES, NO_GAINS)
        }

    def rows(self) -> Iterator[tuple[str, float, str]]:
        """Yield metric, value and unit."""
        shares = max((self._false_shares(mixture) for mixture in MIXTURES), key=np.mean)
        youth = max(
            float(self._outcomes[mixture].false_share(age).mean())
            for mixture in MIXTURES
            for age in AGES
        )
        lowest = {age: min(self._power(SOME, age), self._power(MANY, age)) for age in (100, 1000)}
        first = self._power(SOME, 1)
        yield "life_fdr", float(shares.mean()), "false share, worst mixture"
        yield "life_fdr_upper", _upper(shares), "95 % bound"
        yield "life_fdr_any_age", youth, "worst of gates 10 to 1,000"
        yield "life_fdr_no_gains", float(self._false_shares(NO_GAINS).mean()), "lives, no real gain"
        yield "power_first", first, "share of real gains"
        yield "power_100", lowest[100], "lower of 30 and 70 % real"
        yield "power_1000", lowest[1000], "lower of 30 and 70 % real"
        yield "power_1000_rare", self._power(RARE, 1000), "10 % real"
        end = (STRETCH.nulls_from or 0) + NULLS
        yield "power_after_100_nulls", self._power(STRETCH, end + 1), "at once"
        yield (
            "power_after_100_nulls_and_5_gains",
            self._power(STRETCH, end + REAL_GAINS_AFTER + 1),
            "after five real gains",
        )
        yield "harmful_share", self._harmful_share(), "of harmful candidates promoted"
        for gate in (10, 100, 1000):
            measured, true = self._gains_up_to(gate)
            yield f"golden_wear_{gate}", measured / true - 1, "golden gain above the true one"

    def _false_shares(self, mixture: Mixture) -> Floats:
        return self._outcomes[mixture].false_share()

    def _power(self, mixture: Mixture, gate: int) -> float:
        return power(self._lives, self._outcomes[mixture].levels[:, gate - 1])

    def _harmful_share(self) -> float:
        """Return the worst mixture's share of harmful candidates that were promoted."""
        return max(
            float((outcomes.promoted & harmful).sum() / harmful.sum())
            for outcomes in self._outcomes.values()
            for harmful in (outcomes.kinds == HARMFUL,)
        )

    def _gains_up_to(self, gate: int) -> tuple[float, float]:
        """Return the sums of golden gains and of true gains over the promotions of the first gates,
        with 10 % real gains, where the selection is strongest.
        """
        outcomes = self._outcomes[RARE]
        measured, true = 0.0, 0.0
        for life, candidates, promoted in zip(
            self._lives, outcomes.candidates, outcomes.promoted, strict=True
        ):
            chosen = candidates[:gate][promoted[:gate]]
            measured += float(life.golden_gains[chosen].sum())
            true += float(life.true_gains[chosen].sum())
        return measured, true


def figures_of_rule(lives: Sequence[Life], name: str) -> RuleFigures:
    """Return the figures of a rule of `RULES`."""
    return list(LifeFigures(lives, RULES[name]).rows())


def life_results(figures: Mapping[str, RuleFigures]) -> list[Result]:
    """Return the figures of the chosen rule; the baseline is the rule of Ratchet 0.1."""
    return [
        Result(metric, value, unit, former)
        for (metric, value, unit), (_, former, _) in zip(
            figures["chosen"], figures["alpha spending"], strict=True
        )
    ]


def life_tables(
    real: Mapping[str, RuleFigures], normal: Mapping[str, RuleFigures]
) -> Iterator[str]:
    """Yield the figures of the chosen and of the former rule, and those of all rules on real
    and on normal scores.
    """
    yield table(
        ("figure", "value", "", "rule of Ratchet 0.1"),
        [
            (row.metric, f"{row.value:.3g}", row.unit, f"{row.baseline or 0:.3g}")
            for row in life_results(real)
        ],
    )
    for scores, figures in (("real scores", real), ("normal scores", normal)):
        yield table(
            (f"rule, {scores}", *COMPARED),
            [
                (name, *(f"{value:.3f}" for metric, value, _ in rows if metric in COMPARED))
                for name, rows in figures.items()
            ],
        )


def _upper(shares: Floats) -> float:
    """Return the one-sided 95 % bound of a mean over lives (normal approximation)."""
    return float(shares.mean() + 1.645 * shares.std(ddof=1) / np.sqrt(len(shares)))
