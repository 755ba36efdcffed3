"""The gate: from scores per example to a verdict with its reasons. It blocks promotion unless there
is evidence.

`promote` if the lower confidence bound of the mean difference, candidate minus champion, is above
`improvement_margin` on the held-out or on the golden set, that set has `minimum_examples`, and no
set objects. `reject` if there is evidence of harm. `inconclusive` otherwise.

Held-out feedback alone is not enough: it has the same source as the batch, so what poisons one
poisons the other. A candidate that is better on it must also be shown not to be worse on the golden
set: there its lower bound is at least minus `harm_margin`. Held-out and golden are compared with
the champion, the regression set with the base, so that forgetting cannot add up unnoticed.

Harm, per set: a mean difference below minus the set's margin blocks promotion, with or without
evidence; with evidence (the upper bound is below zero as well) it rejects. So a few noisy examples
can block a candidate, but not quarantine its batch. A regression prompt that the champion passed
and the candidate fails rejects.

Error of promotion: `alpha` is the error that this evaluation may spend (`promotion_level`). It is
shared evenly by all that can promote (Bonferroni): the likelihood on each of the two sets and, on
each, the metrics that the model file lets promote. The p-value of a verdict is the smallest `alpha`
at which it would have been `promote`. Looking for harm spends none of it: the bound of harm stays
at 1 - confidence.

Metrics of greedy answers decide if the model file says so (`deciding`): worse than their margin
they block a candidate, or reject it on evidence, and with `promotes` evidence that they are better
counts like the likelihood's. The others are only reported.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from services.trainer.gate.confidence_bounds import BootstrapBounds
from services.trainer.gate.deciding_metrics import (
    may_promote,
    measure_set,
    metric_improvement,
    metric_objection,
)
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.gate.findings import Improvement, Objection, certainty, label, too_few
from shared.config.gate import GateSettings
from shared.events import Comparison, Decision, Verdict

SetName = Literal["held_out", "golden", "retention"]


def decide(
    evidence: GateEvidence, gate: GateSettings, baseline_version: str, alpha: float, seed: int
) -> Verdict:
    """Return the verdict on a candidate against `baseline_version`. `alpha` is the error that this
    evaluation may spend; `seed` is that of the bootstrap.
    """
    ways = 2 * (1 + sum(metric.promotes for metric in gate.deciding.values()))
    share = alpha / ways
    held_out_bounds, golden_bounds, regression_bounds = (
        _bounds(scores, seed)
        for scores in (evidence.held_out, evidence.golden, evidence.regression)
    )
    held_out = _compare(
        "held_out", evidence.held_out, held_out_bounds, gate.harm_margin, share, gate
    )
    golden = _compare("golden", evidence.golden, golden_bounds, gate.harm_margin, share, gate)
    regression = _compare(
        "retention", evidence.regression, regression_bounds, gate.regression_margin, share, gate
    )
    measures = [
        *measure_set("held_out", evidence.held_out, evidence.held_out_answers, share, gate, seed),
        *measure_set("golden", evidence.golden, evidence.golden_answers, share, gate, seed),
    ]
    improvements = [
        _improvement(held_out, held_out_bounds, gate),
        _improvement(golden, golden_bounds, gate),
        *(metric_improvement(row, gate) for row in measures if may_promote(row.measure, gate)),
    ]
    possible_objections = (
        *(_objection(comparison) for comparison in (held_out, golden, regression)),
        *(metric_objection(row.measure) for row in measures),
        _prompts_objection(evidence, baseline_version),
    )
    objections = [objection for objection in possible_objections if objection]
    better = {improvement.set_name for improvement in improvements if improvement.is_shown}
    reasons = [row.reason for row in objections] + [row.reason for row in improvements]
    if not objections and better == {"held_out"} and not _is_not_worse(golden):
        reasons.insert(
            0,
            f"golden: may be worse by {-golden.lower:.4f} nats per token, "
            f"{golden.margin:.4f} is allowed; held-out alone is not enough",
        )
    return Verdict(
        decision=_decision(objections, better, golden),
        baseline_version=baseline_version,
        confidence=1 - alpha,
        reasons=tuple(reasons),
        comparisons=(held_out, golden, regression, _compare_prompts(evidence)),
        measures=tuple(row.measure for row in measures),
        p_value=1.0 if objections else min(1.0, ways * _p_value(improvements, golden_bounds, gate)),
    )


def _p_value(
    improvements: Sequence[Improvement], golden: BootstrapBounds, gate: GateSettings
) -> float:
    """Return the smallest error of one way at which a candidate without objections is promoted."""
    not_worse = golden.p_value(-gate.harm_margin) if golden.examples else 0.0
    return min(
        way.p_value if way.set_name == "golden" else max(way.p_value, not_worse)
        for way in improvements
    )


def _decision(objections: Sequence[Objection], better: set[str], golden: Comparison) -> Decision:
    if any(objection.is_evident for objection in objections):
        return "reject"
    if objections:
        return "inconclusive"
    if "golden" in better or ("held_out" in better and _is_not_worse(golden)):
        return "promote"
    return "inconclusive"


def _bounds(scores: PairedScores, seed: int) -> BootstrapBounds:
    differences = np.asarray(scores.candidate, dtype=np.float64) - np.asarray(scores.baseline)
    return BootstrapBounds(differences.tolist(), seed)


def _compare(
    name: SetName,
    scores: PairedScores,
    bounds: BootstrapBounds,
    margin: float,
    alpha: float,
    gate: GateSettings,
) -> Comparison:
    baseline = np.asarray(scores.baseline, dtype=np.float64)
    candidate = np.asarray(scores.candidate, dtype=np.float64)
    if len(baseline) == 0:
        return Comparison(
            name=name,
            examples=0,
            baseline=0,
            candidate=0,
            difference=0,
            lower=0,
            upper=0,
            margin=margin,
        )
    return Comparison(
        name=name,
        examples=bounds.examples,
        baseline=float(baseline.mean()),
        candidate=float(candidate.mean()),
        difference=bounds.mean,
        lower=bounds.lower(alpha),
        upper=bounds.upper(1 - gate.confidence),
        margin=margin,
    )


def _compare_prompts(evidence: GateEvidence) -> Comparison:
    count = len(evidence.prompts_passed_candidate)
    before, after = (
        sum(passed) / max(1, count)
        for passed in (evidence.prompts_passed_baseline, evidence.prompts_passed_candidate)
    )
    change = after - before
    return Comparison(
        name="canaries",
        examples=count,
        baseline=before,
        candidate=after,
        difference=change,
        lower=change,
        upper=change,
        margin=0,
    )


def _improvement(
    comparison: Comparison, bounds: BootstrapBounds, gate: GateSettings
) -> Improvement:
    name = label(comparison.name)
    if comparison.examples < gate.minimum_examples:
        return Improvement(comparison.name, False, too_few(name, comparison.examples, gate))
    is_shown = comparison.lower > gate.improvement_margin
    reason = (
        f"{name}: {comparison.difference:+.4f} nats per token over {comparison.examples} "
        f"examples, at least {comparison.lower:+.4f} with confidence, "
        f"{'above' if is_shown else 'not above'} {gate.improvement_margin:+.4f}"
    )
    return Improvement(comparison.name, is_shown, reason, bounds.p_value(gate.improvement_margin))


def _is_not_worse(golden: Comparison) -> bool:
    return golden.examples == 0 or golden.lower >= -golden.margin


def _objection(comparison: Comparison) -> Objection | None:
    """Return None if the candidate is not worse than the margin allows."""
    if comparison.difference >= -comparison.margin:
        return None
    is_evident = comparison.upper < 0
    reason = (
        f"{label(comparison.name)}: worse by {-comparison.difference:.4f} nats per token over "
        f"{comparison.examples} examples, {comparison.margin:.4f} is allowed"
    )
    return Objection(is_evident, reason + certainty(is_evident))


def _prompts_objection(evidence: GateEvidence, baseline_version: str) -> Objection | None:
    pairs = zip(evidence.prompts_passed_baseline, evidence.prompts_passed_candidate, strict=True)
    failing = [
        str(number) for number, (before, after) in enumerate(pairs, start=1) if before and not after
    ]
    if not failing:
        return None
    return Objection(
        True,
        f"{label('canaries')}: number {', '.join(failing)} passed with {baseline_version} and "
        "fail with the candidate",
    )
