"""The gate: from scores per example to a verdict with its reasons. It blocks unless there is
evidence.

`promote` when the lower confidence bound of the mean difference, candidate minus champion, is above
`improvement_margin` on the held-out or on the golden set, that set has `minimum_examples`, and
nothing is worse anywhere. `reject` when there is evidence of harm. `inconclusive` otherwise.

Held-out feedback alone is not enough: it comes from where the batch comes from, and what poisons
the one poisons the other. So a candidate that is better on it must be shown not to be worse on the
golden set: there its lower bound is at least minus `harm_margin`. Held-out and golden are compared
with the champion, retention with the base, so that forgetting cannot add up unseen.

Harm, per set: a mean difference below minus the set's margin blocks promotion, evidence or not;
with evidence (the upper bound is below zero as well) it rejects. So a handful of noisy examples can
hold a candidate back, but not condemn its batch. A canary that the champion passed and the
candidate fails rejects: what it must not say, it has said.

Error of promotion: `alpha` = 1 - confidence is what a model may err in its whole life. Gate k of a
shard (counted from 1) may spend alpha · 6 / (π² k²), which adds up to alpha over all k; it is
shared evenly by the shards, in the same proportion by repeated evaluations of one candidate, and
then by all that can promote (Bonferroni): the likelihood on each of the two sets and, on each, the
measures that the model file lets promote. Evidence of harm costs nothing to look for: its bound
stays at alpha.

Measures of greedy answers decide where the model file says so (`deciding`): worse than their margin
they hold a candidate back, or reject it on evidence, and with `promotes` evidence that they are
better is as good as likelihood's. The others are reported only.
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
from shared.config.model_file import AnswerMeasure, GateSettings
from shared.events import Comparison, Decision, Measure, Verdict

SetName = Literal["held_out", "golden", "retention"]


@dataclass(frozen=True)
class PairedScores:
    """Scores on the same examples, in the same order, in nats per answer token; the baseline is the
    champion, for retention the base.
    """

    baseline: Sequence[float]
    candidate: Sequence[float]


@dataclass(frozen=True)
class GateEvidence:
    """All that is known of a candidate. `canaries` holds pass or fail; `said` is of the first
    examples of a set.
    """

    held_out: PairedScores
    golden: PairedScores
    regression: PairedScores
    prompts_passed_baseline: Sequence[bool]
    prompts_passed_candidate: Sequence[bool]
    held_out_answers: GreedyAnswers = NO_ANSWERS
    golden_answers: GreedyAnswers = NO_ANSWERS


def alpha_for_gate(confidence: float, gate: int, evaluation: int = 1, shards: int = 1) -> float:
    """The error of promotion that one look may make; `gate` and `evaluation` count from 1."""
    return (1 - confidence) * _share(gate) * _share(evaluation) / shards


def _share(k: int) -> float:
    """A share of the whole that adds up to 1 over all k: 6 / (π² k²) (Euler)."""
    return 6 / (pi * k) ** 2


def decide(
    evidence: GateEvidence, gate: GateSettings, baseline_version: str, alpha: float, seed: int
) -> Verdict:
    """The verdict on a candidate against `baseline_version`; `alpha` is what `spent` allows this
    look.
    """
    ways = 2 * (1 + sum(one.promotes for one in gate.deciding.values()))
    each_alpha = alpha / ways
    held_out = _compare("held_out", evidence.held_out, gate.harm_margin, each_alpha, gate, seed)
    golden = _compare("golden", evidence.golden, gate.harm_margin, each_alpha, gate, seed)
    retention = _compare(
        "retention", evidence.regression, gate.retention_margin, each_alpha, gate, seed
    )
    canaries = _compare_canaries(evidence)
    measures = [
        *_measure("held_out", evidence.held_out, evidence.held_out_answers, each_alpha, gate, seed),
        *_measure("golden", evidence.golden, evidence.golden_answers, each_alpha, gate, seed),
    ]
    improvements = [(found.name, *_improvement(found, gate)) for found in (held_out, golden)]
    improvements += [
        (found.set, *_improvement_of(found, gate))
        for found in measures
        if _may_promote(found, gate)
    ]
    objections = [
        objection for found in (held_out, golden, retention) if (objection := _objection(found))
    ]
    objections += [objection for found in measures if (objection := _objection_of(found))]
    failing = _newly_failing(evidence)
    if failing:
        objections.append(
            (
                True,
                f"canaries: {_numbers(failing)} passed with {baseline_version} and fail with "
                "the candidate",
            )
        )
    better = {name for name, is_better, _ in improvements if is_better}
    decision: Decision = "inconclusive"
    if any(evident for evident, _ in objections):
        decision = "reject"
    elif not objections and (
        "golden" in better or ("held_out" in better and _is_not_worse(golden))
    ):
        decision = "promote"
    reasons = [*(text for _, text in objections), *(text for _, _, text in improvements)]
    if not objections and better == {"held_out"} and not _is_not_worse(golden):
        reasons.insert(
            0,
            f"golden: may be worse by {-golden.lower:.4f} nats per token, "
            f"{golden.margin:.4f} is allowed; held-out alone is not enough",
        )
    return Verdict(
        decision=decision,
        baseline_version=baseline_version,
        confidence=1 - alpha,
        reasons=tuple(reasons),
        comparisons=(held_out, golden, retention, canaries),
        measures=tuple(measures),
    )


def _compare(
    name: SetName, scores: PairedScores, margin: float, alpha: float, gate: GateSettings, seed: int
) -> Comparison:
    baseline, candidate = (
        np.asarray(scores.baseline, dtype=np.float64),
        np.asarray(scores.candidate, dtype=np.float64),
    )
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


def _compare_canaries(evidence: GateEvidence) -> Comparison:
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


def _improvement(found: Comparison, gate: GateSettings) -> tuple[bool, str]:
    name = _plain(found.name)
    if found.examples < gate.minimum_examples:
        return (
            False,
            f"{name}: {found.examples} examples, {gate.minimum_examples} are needed to say "
            "that a candidate is better",
        )
    better = found.lower > gate.improvement_margin
    told = (
        f"{name}: {found.difference:+.4f} nats per token over {found.examples} examples, at "
        f"least {found.lower:+.4f} with confidence"
    )
    return better, f"{told}, {'above' if better else 'not above'} {gate.improvement_margin:+.4f}"


def _is_not_worse(golden: Comparison) -> bool:
    return golden.examples == 0 or golden.lower >= -golden.margin


def _objection(found: Comparison) -> tuple[bool, str] | None:
    """Whether there is evidence of harm, and what it is; None where nothing is worse than the
    margin allows.
    """
    if found.difference >= -found.margin:
        return None
    evident = found.upper < 0
    told = (
        f"{_plain(found.name)}: worse by {-found.difference:.4f} nats per token over "
        f"{found.examples} examples"
    )
    return (
        evident,
        f"{told}, {found.margin:.4f} is "
        f"allowed{'' if evident else ' (too few or too different to be sure)'}",
    )


def _measure(
    name: Literal["held_out", "golden"],
    scores: PairedScores,
    said: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> list[Measure]:
    found: list[Measure] = []
    if scores.candidate:
        before, after = perplexity(scores.baseline), perplexity(scores.candidate)
        found.append(
            Measure(
                name="perplexity",
                set=name,
                examples=len(scores.candidate),
                baseline=before,
                candidate=after,
            )
        )
    if said.references:
        found += [
            _measure_answers(measure, name, said, alpha, gate, seed) for measure in ANSWER_METRICS
        ]
    return found


def _measure_answers(
    measure: AnswerMeasure,
    name: Literal["held_out", "golden"],
    said: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> Measure:
    found = Measure(
        name=measure,
        set=name,
        examples=len(said.references),
        baseline=set_metric(measure, said.baseline, said.references),
        candidate=set_metric(measure, said.candidate, said.references),
    )
    if measure not in gate.deciding:
        return found
    pairs = zip(
        answer_metric(measure, said.baseline, said.references),
        answer_metric(measure, said.candidate, said.references),
        strict=True,
    )
    differences = [after - before for before, after in pairs]
    harm = 1 - gate.confidence
    lower, upper = (
        exact_bounds(differences, alpha, harm)
        if measure in BINARY_METRICS
        else bootstrap_bounds(differences, alpha, harm, seed)
    )
    decides = {
        "margin": gate.deciding[measure].margin,
        "difference": float(np.mean(differences)),
        "lower": lower,
        "upper": upper,
    }
    return found.model_copy(update=decides)


def _may_promote(found: Measure, gate: GateSettings) -> bool:
    return (
        found.name != "perplexity"
        and found.name in gate.deciding
        and gate.deciding[found.name].promotes
    )


def _improvement_of(found: Measure, gate: GateSettings) -> tuple[bool, str]:
    name = f"{_plain(found.name)} on {_plain(found.set)}"
    if found.examples < gate.minimum_examples:
        return (
            False,
            f"{name}: {found.examples} examples, {gate.minimum_examples} are needed to say "
            "that a candidate is better",
        )
    assert found.lower is not None
    told = (
        f"{name}: {found.difference:+.4f} over {found.examples} examples, at least "
        f"{found.lower:+.4f} with confidence"
    )
    return found.lower > 0, f"{told}, {'above' if found.lower > 0 else 'not above'} zero"


def _objection_of(found: Measure) -> tuple[bool, str] | None:
    """As `_objection`, for a measure that decides."""
    if (
        found.difference is None
        or found.margin is None
        or found.upper is None
        or found.difference >= -found.margin
    ):
        return None
    evident = found.upper < 0
    told = (
        f"{_plain(found.name)} on {_plain(found.set)}: worse by {-found.difference:.4f} over "
        f"{found.examples} examples"
    )
    return (
        evident,
        f"{told}, {found.margin:.4f} is "
        f"allowed{'' if evident else ' (too few or too different to be sure)'}",
    )


def _newly_failing(evidence: GateEvidence) -> list[int]:
    pairs = zip(evidence.prompts_passed_baseline, evidence.prompts_passed_candidate, strict=True)
    return [number for number, (before, after) in enumerate(pairs, start=1) if before and not after]


def _numbers(lines: Sequence[int]) -> str:
    return "number " + ", ".join(map(str, lines))


def _plain(name: str) -> str:
    return {
        "held_out": "held-out",
        "exact_match": "exact match",
        "json_validity": "JSON validity",
        "bleu": "BLEU",
        "chrf": "chrF",
    }.get(name, name)
