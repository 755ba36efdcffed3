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

Error of promotion: `alpha` = 1 - confidence is the error over a model's whole life. Gate k of a
shard (counted from 1) may spend alpha · 6 / (π² k²), which adds up to alpha over all k. It is
shared evenly by the shards, in the same proportion by repeated evaluations of one candidate, and
then by all that can promote (Bonferroni): the likelihood on each of the two sets and, on each, the
metrics that the model file lets promote. Looking for harm spends none of it: the bound of harm
stays at alpha.

Metrics of greedy answers decide if the model file says so (`deciding`): worse than their margin
they block a candidate, or reject it on evidence, and with `promotes` evidence that they are better
counts like the likelihood's. The others are only reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Literal

import numpy as np

from services.trainer.gate.answer_metrics import (
    ANSWER_METRICS,
    BINARY_METRICS,
    NO_ANSWERS,
    GreedyAnswers,
    answer_metric,
    perplexity,
    set_metric,
)
from services.trainer.gate.confidence_bounds import bootstrap_bounds, exact_bounds
from shared.config.gate import AnswerMeasure, GateSettings
from shared.events import Comparison, Decision, Measure, Verdict

SetName = Literal["held_out", "golden", "retention"]
AnsweredSet = Literal["held_out", "golden"]


@dataclass(frozen=True)
class PairedScores:
    """Scores of baseline and candidate on the same examples, in the same order, in nats per answer
    token. The baseline is the champion; of the regression set, the base.
    """

    baseline: Sequence[float]
    candidate: Sequence[float]


@dataclass(frozen=True)
class GateEvidence:
    """Evaluation results of a candidate. `prompts_passed_*` are of the regression prompts;
    `*_answers` are of the first examples of a set.
    """

    held_out: PairedScores
    golden: PairedScores
    regression: PairedScores
    prompts_passed_baseline: Sequence[bool]
    prompts_passed_candidate: Sequence[bool]
    held_out_answers: GreedyAnswers = NO_ANSWERS
    golden_answers: GreedyAnswers = NO_ANSWERS


@dataclass(frozen=True)
class _Improvement:
    """Result of looking for a gain on a set."""

    set_name: str
    is_shown: bool
    reason: str


@dataclass(frozen=True)
class _Objection:
    """A set or metric on which the candidate is worse than allowed."""

    is_evident: bool
    reason: str


def alpha_for_gate(confidence: float, gate: int, evaluation: int = 1, shards: int = 1) -> float:
    """Return the error of promotion that one evaluation may spend; `gate` and `evaluation` count
    from 1.
    """
    return (1 - confidence) * _spending_share(gate) * _spending_share(evaluation) / shards


def _spending_share(k: int) -> float:
    """Return 6 / (π² k²), shares that add up to 1 over all k (Euler)."""
    return 6 / (pi * k) ** 2


def decide(
    evidence: GateEvidence, gate: GateSettings, baseline_version: str, alpha: float, seed: int
) -> Verdict:
    """Return the verdict on a candidate against `baseline_version`. `alpha` is the error that this
    evaluation may spend, see `alpha_for_gate`; `seed` is that of the bootstrap.
    """
    ways = 2 * (1 + sum(metric.promotes for metric in gate.deciding.values()))
    share = alpha / ways
    held_out = _compare("held_out", evidence.held_out, gate.harm_margin, share, gate, seed)
    golden = _compare("golden", evidence.golden, gate.harm_margin, share, gate, seed)
    regression = _compare(
        "retention", evidence.regression, gate.regression_margin, share, gate, seed
    )
    measures = [
        *_measures("held_out", evidence.held_out, evidence.held_out_answers, share, gate, seed),
        *_measures("golden", evidence.golden, evidence.golden_answers, share, gate, seed),
    ]
    improvements = [
        *(_improvement(comparison, gate) for comparison in (held_out, golden)),
        *(_metric_improvement(row, gate) for row in measures if _may_promote(row, gate)),
    ]
    possible_objections = (
        *(_objection(comparison) for comparison in (held_out, golden, regression)),
        *(_metric_objection(row) for row in measures),
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
        measures=tuple(measures),
    )


def _decision(objections: Sequence[_Objection], better: set[str], golden: Comparison) -> Decision:
    if any(objection.is_evident for objection in objections):
        return "reject"
    if objections:
        return "inconclusive"
    if "golden" in better or ("held_out" in better and _is_not_worse(golden)):
        return "promote"
    return "inconclusive"


def _compare(
    name: SetName,
    scores: PairedScores,
    margin: float,
    alpha: float,
    gate: GateSettings,
    seed: int,
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
    differences = candidate - baseline
    lower, upper = bootstrap_bounds(differences.tolist(), alpha, 1 - gate.confidence, seed)
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


def _improvement(comparison: Comparison, gate: GateSettings) -> _Improvement:
    name = _label(comparison.name)
    if comparison.examples < gate.minimum_examples:
        return _Improvement(comparison.name, False, _too_few(name, comparison.examples, gate))
    is_shown = comparison.lower > gate.improvement_margin
    reason = (
        f"{name}: {comparison.difference:+.4f} nats per token over {comparison.examples} "
        f"examples, at least {comparison.lower:+.4f} with confidence, "
        f"{'above' if is_shown else 'not above'} {gate.improvement_margin:+.4f}"
    )
    return _Improvement(comparison.name, is_shown, reason)


def _too_few(name: str, examples: int, gate: GateSettings) -> str:
    return f"{name}: {examples} examples, {gate.minimum_examples} are needed to show a gain"


def _is_not_worse(golden: Comparison) -> bool:
    return golden.examples == 0 or golden.lower >= -golden.margin


def _objection(comparison: Comparison) -> _Objection | None:
    """Return None if the candidate is not worse than the margin allows."""
    if comparison.difference >= -comparison.margin:
        return None
    is_evident = comparison.upper < 0
    reason = (
        f"{_label(comparison.name)}: worse by {-comparison.difference:.4f} nats per token over "
        f"{comparison.examples} examples, {comparison.margin:.4f} is allowed"
    )
    return _Objection(is_evident, reason + _certainty(is_evident))


def _certainty(is_evident: bool) -> str:
    return "" if is_evident else " (too few or too different to be sure)"


def _measures(
    name: AnsweredSet,
    scores: PairedScores,
    answers: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> list[Measure]:
    measures: list[Measure] = []
    if scores.candidate:
        measures.append(
            Measure(
                name="perplexity",
                set=name,
                examples=len(scores.candidate),
                baseline=perplexity(scores.baseline),
                candidate=perplexity(scores.candidate),
            )
        )
    if answers.references:
        measures += [
            _measure_answers(metric, name, answers, alpha, gate, seed) for metric in ANSWER_METRICS
        ]
    return measures


def _measure_answers(
    metric: AnswerMeasure,
    name: AnsweredSet,
    answers: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> Measure:
    measure = Measure(
        name=metric,
        set=name,
        examples=len(answers.references),
        baseline=set_metric(metric, answers.baseline, answers.references),
        candidate=set_metric(metric, answers.candidate, answers.references),
    )
    if metric not in gate.deciding:
        return measure
    pairs = zip(
        answer_metric(metric, answers.baseline, answers.references),
        answer_metric(metric, answers.candidate, answers.references),
        strict=True,
    )
    differences = [after - before for before, after in pairs]
    harm = 1 - gate.confidence
    lower, upper = (
        exact_bounds(differences, alpha, harm)
        if metric in BINARY_METRICS
        else bootstrap_bounds(differences, alpha, harm, seed)
    )
    return measure.model_copy(
        update={
            "margin": gate.deciding[metric].margin,
            "difference": float(np.mean(differences)),
            "lower": lower,
            "upper": upper,
        }
    )


def _may_promote(measure: Measure, gate: GateSettings) -> bool:
    return (
        measure.name != "perplexity"
        and measure.name in gate.deciding
        and gate.deciding[measure.name].promotes
    )


def _metric_improvement(measure: Measure, gate: GateSettings) -> _Improvement:
    name = f"{_label(measure.name)} on {_label(measure.set)}"
    if measure.examples < gate.minimum_examples:
        return _Improvement(measure.set, False, _too_few(name, measure.examples, gate))
    assert measure.lower is not None
    is_shown = measure.lower > 0
    reason = (
        f"{name}: {measure.difference:+.4f} over {measure.examples} examples, at least "
        f"{measure.lower:+.4f} with confidence, {'above' if is_shown else 'not above'} zero"
    )
    return _Improvement(measure.set, is_shown, reason)


def _metric_objection(measure: Measure) -> _Objection | None:
    """Return None if the metric does not decide, or is not worse than its margin allows."""
    if measure.difference is None or measure.margin is None or measure.upper is None:
        return None
    if measure.difference >= -measure.margin:
        return None
    is_evident = measure.upper < 0
    reason = (
        f"{_label(measure.name)} on {_label(measure.set)}: worse by {-measure.difference:.4f} over "
        f"{measure.examples} examples, {measure.margin:.4f} is allowed"
    )
    return _Objection(is_evident, reason + _certainty(is_evident))


def _prompts_objection(evidence: GateEvidence, baseline_version: str) -> _Objection | None:
    pairs = zip(evidence.prompts_passed_baseline, evidence.prompts_passed_candidate, strict=True)
    failing = [
        str(number) for number, (before, after) in enumerate(pairs, start=1) if before and not after
    ]
    if not failing:
        return None
    return _Objection(
        True,
        f"{_label('canaries')}: number {', '.join(failing)} passed with {baseline_version} and "
        "fail with the candidate",
    )


def _label(name: str) -> str:
    """Return the name to show to people: the model file's keys and the metrics have short names."""
    return {
        "held_out": "held-out",
        "retention": "regression set",
        "canaries": "regression prompts",
        "exact_match": "exact match",
        "json_validity": "JSON validity",
        "bleu": "BLEU",
        "chrf": "chrF",
    }.get(name, name)
