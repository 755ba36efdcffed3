"""What is told of the gate's trials: figures, and tables in docs/gate.md between two marks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gate.minimum_examples import BoundError
from benchmarks.results import Result
from services.trainer.gate.confidence_bounds import clopper_pearson_lower

LITTLE, MUCH = 0.02, 0.1
"""Nats per answer token. What is true of a candidate; fixed beforehand."""

PAGE = Path("docs/gate.md")
BEGIN, END = "<!-- written by make bench-gate -->", "<!-- end -->"


@dataclass(frozen=True)
class CandidateResult:
    """A candidate: how it was made, its true gain in nats per answer token with the standard error
    of that, and the gate's word.
    """

    method: str
    good_data: str
    poison_share: float
    true_gain: float
    standard_error: float
    decision: str

    @property
    def is_null(self) -> bool:
        return self.method != "trained" and self.true_gain < LITTLE

    @property
    def is_worse(self) -> bool:
        return self.true_gain <= -LITTLE

    @property
    def promoted(self) -> bool:
        return self.decision == "promote"


def summarize(trials: Sequence[CandidateResult], diverged: int) -> list[Result]:
    """The figures that the gate is held to; `diverged` runs never came to it."""
    nulls, worse = [one for one in trials if one.is_null], [one for one in trials if one.is_worse]
    worse_trained = [one for one in worse if one.method == "trained"]
    little = [one for one in trials if LITTLE <= one.true_gain < MUCH]
    much = [one for one in trials if one.true_gain >= MUCH]
    return [
        Result("null_candidates", len(nulls), "candidates"),
        Result("trained_candidates", sum(one.method == "trained" for one in trials), "candidates"),
        Result("diverged_runs", diverged, "runs that ended early"),
        Result("false_promotion_share", _promoted(nulls), "share of nulls"),
        Result("false_promotion_upper", _upper(nulls), "95 % bound"),
        Result("harmful_promotion_share", _promoted(worse), f"share of {len(worse)} truly worse"),
        Result(
            "harmful_promotion_share_trained",
            _promoted(worse_trained),
            f"share of {len(worse_trained)} truly worse",
        ),
        Result("harmful_promotion_upper_trained", _upper(worse_trained), "95 % bound"),
        Result(
            "better_promotion_share_small",
            _promoted(little),
            f"share of {len(little)} a little better",
        ),
        Result(
            "better_promotion_share_large", _promoted(much), f"share of {len(much)} much better"
        ),
        Result(
            "truth_standard_error",
            float(np.median([one.standard_error for one in trials])),
            "nats/token, median",
        ),
        Result(
            "truth_standard_error_most", max(one.standard_error for one in trials), "nats/token"
        ),
    ]


def write_page(
    trials: Sequence[CandidateResult], figures: Sequence[Result], errors: Sequence[BoundError]
) -> None:
    """Put the tables where the page has room for them."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(
        f"{before}{BEGIN}\n\n{tables(trials, figures, errors)}\n\n{END}{after}", encoding="utf-8"
    )


def tables(
    trials: Sequence[CandidateResult], figures: Sequence[Result], errors: Sequence[BoundError]
) -> str:
    return "\n\n".join(
        [
            _table(
                ("figure", "value", ""),
                [(result.metric, f"{result.value:.4g}", result.unit) for result in figures],
            ),
            _table(
                ("candidates", "made", "truly worse", "the same", "a little better", "much better"),
                _truths(trials),
            ),
            _table(
                (
                    "poisoned",
                    "good data",
                    "truly worse",
                    "of these detected",
                    "of these rejected",
                    "truly better",
                    "of these promoted",
                ),
                _doses(trials),
            ),
            _table(
                ("examples", "differences", "skewness", "error of the bound", "times the stated"),
                [one.row for one in errors],
            ),
        ]
    )


def _truths(trials: Sequence[CandidateResult]) -> list[Sequence[object]]:
    """By the way of making: how many of each truth were promoted."""
    kinds: tuple[Callable[[CandidateResult], bool], ...] = (
        lambda one: one.is_worse,
        lambda one: -LITTLE < one.true_gain < LITTLE,
        lambda one: LITTLE <= one.true_gain < MUCH,
        lambda one: one.true_gain >= MUCH,
    )
    rows: list[Sequence[object]] = []
    for made in dict.fromkeys(one.method for one in trials):
        mine = [one for one in trials if one.method == made]
        rows.append(
            (
                made,
                len(mine),
                *(
                    _of([one for one in mine if kind(one)], lambda one: one.promoted)
                    for kind in kinds
                ),
            )
        )
    return rows


def _doses(trials: Sequence[CandidateResult]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    trained = [one for one in trials if one.method == "trained"]
    for dose, good in dict.fromkeys(
        (one.poison_share, one.good_data)
        for one in sorted(trained, key=lambda one: one.poison_share)
    ):
        mine = [one for one in trained if (one.poison_share, one.good_data) == (dose, good)]
        worse, better = (
            [one for one in mine if one.is_worse],
            [one for one in mine if one.true_gain >= LITTLE],
        )
        rows.append(
            (
                f"{dose:.0%}",
                good,
                f"{len(worse)} of {len(mine)}",
                _of(worse, lambda one: not one.promoted),
                _of(worse, lambda one: one.decision == "reject"),
                f"{len(better)} of {len(mine)}",
                _of(better, lambda one: one.promoted),
            )
        )
    return rows


def _of(trials: Sequence[CandidateResult], holds: Callable[[CandidateResult], bool]) -> str:
    found = sum(map(holds, trials))
    return f"{found} of {len(trials)} ({found / len(trials):.1%})" if trials else "none"


def _promoted(trials: Sequence[CandidateResult]) -> float:
    """Of no candidates there is no share: the trials would say nothing of what they are for, and
    that is an error.
    """
    return sum(one.promoted for one in trials) / len(trials)


def _upper(trials: Sequence[CandidateResult]) -> float:
    """The one-sided 95 % bound of the share that is promoted (Clopper & Pearson 1934)."""
    return 1 - clopper_pearson_lower(sum(not one.promoted for one in trials), len(trials), 0.05)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
