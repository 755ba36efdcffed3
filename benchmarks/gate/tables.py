"""Figures of the gate benchmark, and its tables in docs/gate.md between two marks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gate.minimum_examples import BoundError
from benchmarks.results import Result
from services.trainer.gate.confidence_bounds import clopper_pearson_lower

SMALL_GAIN, LARGE_GAIN = 0.02, 0.1
"""Thresholds of a candidate's true quality in nats per answer token, fixed beforehand."""

PAGE = Path("docs/gate.md")
BEGIN, END = "<!-- written by make bench-gate -->", "<!-- end -->"


@dataclass(frozen=True)
class CandidateResult:
    """A candidate: its method, its true gain in nats per answer token with the standard error, and
    the gate's decision.
    """

    method: str
    good_data: str
    poison_share: float
    true_gain: float
    standard_error: float
    decision: str

    @property
    def is_null(self) -> bool:
        return self.method != "trained" and self.true_gain < SMALL_GAIN

    @property
    def is_worse(self) -> bool:
        return self.true_gain <= -SMALL_GAIN

    @property
    def promoted(self) -> bool:
        return self.decision == "promote"


def summarize(candidates: Sequence[CandidateResult], diverged: int) -> list[Result]:
    """Return the figures of the gate; `diverged` runs never reached it."""
    nulls, worse = (
        [result for result in candidates if result.is_null],
        [result for result in candidates if result.is_worse],
    )
    worse_trained = [result for result in worse if result.method == "trained"]
    little = [result for result in candidates if SMALL_GAIN <= result.true_gain < LARGE_GAIN]
    much = [result for result in candidates if result.true_gain >= LARGE_GAIN]
    return [
        Result("null_candidates", len(nulls), "candidates"),
        Result(
            "trained_candidates",
            sum(result.method == "trained" for result in candidates),
            "candidates",
        ),
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
            float(np.median([result.standard_error for result in candidates])),
            "nats/token, median",
        ),
        Result(
            "truth_standard_error_most",
            max(result.standard_error for result in candidates),
            "nats/token",
        ),
    ]


def write_page(tables: str) -> None:
    """Replace the tables between the page's two marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def candidate_tables(
    candidates: Sequence[CandidateResult], figures: Sequence[Result], errors: Sequence[BoundError]
) -> str:
    return "\n\n".join(
        [
            table(
                ("figure", "value", ""),
                [(result.metric, f"{result.value:.4g}", result.unit) for result in figures],
            ),
            table(
                ("candidates", "made", "truly worse", "the same", "a little better", "much better"),
                _rows_by_method(candidates),
            ),
            table(
                (
                    "poisoned",
                    "good data",
                    "truly worse",
                    "of these detected",
                    "of these rejected",
                    "truly better",
                    "of these promoted",
                ),
                _rows_by_poison(candidates),
            ),
            table(
                ("examples", "differences", "skewness", "error of the bound", "times the stated"),
                [error.row for error in errors],
            ),
        ]
    )


def _rows_by_method(candidates: Sequence[CandidateResult]) -> list[Sequence[object]]:
    """Return, by method, the promoted candidates of each true quality."""
    kinds: tuple[Callable[[CandidateResult], bool], ...] = (
        lambda result: result.is_worse,
        lambda result: -SMALL_GAIN < result.true_gain < SMALL_GAIN,
        lambda result: SMALL_GAIN <= result.true_gain < LARGE_GAIN,
        lambda result: result.true_gain >= LARGE_GAIN,
    )
    rows: list[Sequence[object]] = []
    for method in dict.fromkeys(result.method for result in candidates):
        group = [result for result in candidates if result.method == method]
        rows.append(
            (
                method,
                len(group),
                *(
                    _of(
                        [result for result in group if kind(result)], lambda result: result.promoted
                    )
                    for kind in kinds
                ),
            )
        )
    return rows


def _rows_by_poison(candidates: Sequence[CandidateResult]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    trained = [result for result in candidates if result.method == "trained"]
    for poison_share, good_data in dict.fromkeys(
        (result.poison_share, result.good_data)
        for result in sorted(trained, key=lambda result: result.poison_share)
    ):
        group = [
            result
            for result in trained
            if (result.poison_share, result.good_data) == (poison_share, good_data)
        ]
        worse, better = (
            [result for result in group if result.is_worse],
            [result for result in group if result.true_gain >= SMALL_GAIN],
        )
        rows.append(
            (
                f"{poison_share:.0%}",
                good_data,
                f"{len(worse)} of {len(group)}",
                _of(worse, lambda result: not result.promoted),
                _of(worse, lambda result: result.decision == "reject"),
                f"{len(better)} of {len(group)}",
                _of(better, lambda result: result.promoted),
            )
        )
    return rows


def _of(candidates: Sequence[CandidateResult], condition: Callable[[CandidateResult], bool]) -> str:
    count = sum(map(condition, candidates))
    return f"{count} of {len(candidates)} ({count / len(candidates):.1%})" if candidates else "none"


def _promoted(candidates: Sequence[CandidateResult]) -> float:
    """Return the promoted share. Raises ZeroDivisionError without candidates, because the benchmark
    would then show nothing.
    """
    return sum(result.promoted for result in candidates) / len(candidates)


def _upper(candidates: Sequence[CandidateResult]) -> float:
    """Return the one-sided 95 % bound of the promoted share (Clopper & Pearson 1934)."""
    return 1 - clopper_pearson_lower(
        sum(not result.promoted for result in candidates), len(candidates), 0.05
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
