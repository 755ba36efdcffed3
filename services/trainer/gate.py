"""The gate: from scores per example to a verdict with its reasons. It blocks unless there is evidence.

`promote` when the lower confidence bound of the mean difference, candidate minus champion, is above `improvement_margin` on the
held-out or on the golden set, that set has `minimum_examples`, and nothing is worse anywhere. `reject` when there is evidence of harm.
`inconclusive` otherwise.

Held-out feedback alone is not enough: it comes from where the batch comes from, and what poisons the one poisons the other. So a candidate
that is better on it must be shown not to be worse on the golden set: there its lower bound is at least minus `harm_margin`. Held-out and
golden are compared with the champion, retention with the base, so that forgetting cannot add up unseen.

Harm, per set: a mean difference below minus the set's margin blocks promotion, evidence or not; with evidence (the upper bound is below
zero as well) it rejects. So a handful of noisy examples can hold a candidate back, but not condemn its batch. A canary that the champion
passed and the candidate fails rejects: what it must not say, it has said.

Error of promotion: `alpha` = 1 - confidence is what a model may err in its whole life. Gate k of a shard (counted from 1) may spend
alpha · 6 / (π² k²), which adds up to alpha over all k; it is shared evenly by the shards, in the same proportion by repeated evaluations
of one candidate, and by half to each of the two sets (Bonferroni). Evidence of harm costs nothing to look for: its bound stays at alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from shared.events import Comparison, Decision, Verdict
from shared.model_file import Gate

RESAMPLES = 10_000
NO_BOUND = 1e6
"""Nats; stands for minus or plus infinity where so few examples give no bound at all, since an event holds finite numbers only."""

SetName = Literal["held_out", "golden", "retention"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Scores on the same examples, in the same order, in nats per answer token; the baseline is the champion, for retention the base."""

    baseline: Sequence[float]
    candidate: Sequence[float]


@dataclass(frozen=True)
class Evidence:
    """All that is known of a candidate. `canaries` holds pass or fail."""

    held_out: Paired
    golden: Paired
    retention: Paired
    canaries_baseline: Sequence[bool]
    canaries_candidate: Sequence[bool]


def spent(confidence: float, gate: int, evaluation: int = 1, shards: int = 1) -> float:
    """The error of promotion that one look may make; `gate` and `evaluation` count from 1."""
    return (1 - confidence) * _share(gate) * _share(evaluation) / shards


def _share(k: int) -> float:
    """A share of the whole that adds up to 1 over all k: 6 / (π² k²) (Euler)."""
    return 6 / (pi * k) ** 2


def bounds(differences: Sequence[float], alpha_lower: float, alpha_upper: float, seed: int) -> tuple[float, float]:
    """One-sided confidence bounds of a mean, each with its own error, by the studentised bootstrap (Efron & Tibshirani 1993, 12.5).

    The plain percentile bootstrap errs two to six times as often as it says with five to ten examples; this one keeps its word where
    differences are not very skewed. Beyond what the resamples resolve, its quantile is scaled as the normal distribution's grows.
    Fewer than two examples give no bound.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        return -NO_BOUND, NO_BOUND
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(n))
    if error == 0:
        return mean, mean
    resampled = values[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))]
    shift = resampled.mean(axis=1) - mean
    errors = resampled.std(axis=1, ddof=1) / np.sqrt(n)
    degenerate = errors < error * 1e-9
    students = np.where(degenerate, np.copysign(np.inf, shift), shift / np.where(degenerate, 1.0, errors))
    return _finite(mean - _tail(students, alpha_lower) * error), _finite(mean + _tail(-students, alpha_upper) * error)


def _tail(students: Floats, alpha: float) -> float:
    """The value that a share `alpha` of the distribution lies above."""
    resolved = max(alpha, 10 / RESAMPLES)
    quantile = float(np.quantile(students, 1 - resolved, method="higher"))
    normal = NormalDist()
    return quantile * max(1.0, normal.inv_cdf(1 - alpha) / normal.inv_cdf(1 - resolved)) if quantile > 0 else quantile


def _finite(value: float) -> float:
    return float(np.clip(value, -NO_BOUND, NO_BOUND))


def judge(evidence: Evidence, gate: Gate, baseline_version: str, alpha: float, seed: int) -> Verdict:
    """The verdict on a candidate against `baseline_version`; `alpha` is what `spent` allows this look."""
    held_out = _compare("held_out", evidence.held_out, gate.harm_margin, alpha / 2, gate, seed)
    golden = _compare("golden", evidence.golden, gate.harm_margin, alpha / 2, gate, seed)
    retention = _compare("retention", evidence.retention, gate.retention_margin, alpha / 2, gate, seed)
    canaries = _compare_canaries(evidence)
    improvements = [_improvement(comparison, gate) for comparison in (held_out, golden)]
    objections = [objection for comparison in (held_out, golden, retention) if (objection := _objection(comparison))]
    failing = _newly_failing(evidence)
    if failing:
        objections.append((True, f"canaries: {_numbers(failing)} passed with {baseline_version} and fail with the candidate"))
    better_held_out, better_golden = (better for better, _ in improvements)
    decision: Decision = "inconclusive"
    if any(evident for evident, _ in objections):
        decision = "reject"
    elif not objections and (better_golden or (better_held_out and _is_not_worse(golden))):
        decision = "promote"
    reasons = [text for _, text in (*objections, *improvements)]
    if not objections and better_held_out and not _is_not_worse(golden):
        reasons.insert(
            0, f"golden: may be worse by {-golden.lower:.4f} nats per token, {golden.margin:.4f} is allowed; held-out alone is not enough"
        )
    return Verdict(
        decision=decision,
        baseline_version=baseline_version,
        confidence=1 - alpha,
        reasons=tuple(reasons),
        comparisons=(held_out, golden, retention, canaries),
    )


def _compare(name: SetName, scores: Paired, margin: float, alpha: float, gate: Gate, seed: int) -> Comparison:
    baseline, candidate = np.asarray(scores.baseline, dtype=np.float64), np.asarray(scores.candidate, dtype=np.float64)
    if len(baseline) == 0:
        return Comparison(name=name, examples=0, baseline=0, candidate=0, difference=0, lower=0, upper=0, margin=margin)
    differences = candidate - baseline
    lower, upper = bounds(differences.tolist(), alpha, 1 - gate.confidence, seed)
    return Comparison(
        name=name,
        examples=len(differences),
        baseline=float(baseline.mean()),
        candidate=float(candidate.mean()),
        difference=float(differences.mean()),
        lower=lower,
        upper=upper,
        margin=margin,
    )


def _compare_canaries(evidence: Evidence) -> Comparison:
    count = len(evidence.canaries_candidate)
    before, after = (sum(passed) / max(1, count) for passed in (evidence.canaries_baseline, evidence.canaries_candidate))
    change = after - before
    return Comparison(
        name="canaries", examples=count, baseline=before, candidate=after, difference=change, lower=change, upper=change, margin=0
    )


def _improvement(found: Comparison, gate: Gate) -> tuple[bool, str]:
    name = _plain(found.name)
    if found.examples < gate.minimum_examples:
        return False, f"{name}: {found.examples} examples, {gate.minimum_examples} are needed to say that a candidate is better"
    better = found.lower > gate.improvement_margin
    told = f"{name}: {found.difference:+.4f} nats per token over {found.examples} examples, at least {found.lower:+.4f} with confidence"
    return better, f"{told}, {'above' if better else 'not above'} {gate.improvement_margin:+.4f}"


def _is_not_worse(golden: Comparison) -> bool:
    return golden.examples == 0 or golden.lower >= -golden.margin


def _objection(found: Comparison) -> tuple[bool, str] | None:
    """Whether there is evidence of harm, and what it is; None where nothing is worse than the margin allows."""
    if found.difference >= -found.margin:
        return None
    evident = found.upper < 0
    told = f"{_plain(found.name)}: worse by {-found.difference:.4f} nats per token over {found.examples} examples"
    return evident, f"{told}, {found.margin:.4f} is allowed{'' if evident else ' (too few or too different to be sure)'}"


def _newly_failing(evidence: Evidence) -> list[int]:
    pairs = zip(evidence.canaries_baseline, evidence.canaries_candidate, strict=True)
    return [number for number, (before, after) in enumerate(pairs, start=1) if before and not after]


def _numbers(lines: Sequence[int]) -> str:
    return "number " + ", ".join(map(str, lines))


def _plain(name: str) -> str:
    return name.replace("_", "-")
