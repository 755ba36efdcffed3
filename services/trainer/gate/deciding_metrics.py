"""Metrics other than the likelihood: measures, and gains and objections of the deciding ones."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from services.trainer.gate.answer_metrics import (
    ANSWER_METRICS,
    BINARY_METRICS,
    GreedyAnswers,
    answer_metric,
    perplexity,
    set_metric,
)
from services.trainer.gate.confidence_bounds import BootstrapBounds, exact_bounds, sign_test
from services.trainer.gate.evidence import PairedScores
from services.trainer.gate.findings import Improvement, Objection, certainty, label, too_few
from shared.config.gate import AnswerMeasure, GateSettings
from shared.events import Measure

AnsweredSet = Literal["held_out", "golden"]


@dataclass(frozen=True)
class Measurement:
    """A measure with the smallest error at which its gain is above zero."""

    measure: Measure
    p_value: float = 1.0


def measure_set(
    name: AnsweredSet,
    scores: PairedScores,
    answers: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> list[Measurement]:
    """Return the measures of a set; deciding ones have bounds, the lower one with `alpha`."""
    measurements: list[Measurement] = []
    if scores.candidate:
        perplexities = Measure(
            name="perplexity",
            set=name,
            examples=len(scores.candidate),
            baseline=perplexity(scores.baseline),
            candidate=perplexity(scores.candidate),
        )
        measurements.append(Measurement(perplexities))
    if answers.references:
        measurements += [
            _measure_answers(metric, name, answers, alpha, gate, seed) for metric in ANSWER_METRICS
        ]
    return measurements


def _measure_answers(
    metric: AnswerMeasure,
    name: AnsweredSet,
    answers: GreedyAnswers,
    alpha: float,
    gate: GateSettings,
    seed: int,
) -> Measurement:
    measure = Measure(
        name=metric,
        set=name,
        examples=len(answers.references),
        baseline=set_metric(metric, answers.baseline, answers.references),
        candidate=set_metric(metric, answers.candidate, answers.references),
    )
    if metric not in gate.deciding:
        return Measurement(measure)
    pairs = zip(
        answer_metric(metric, answers.baseline, answers.references),
        answer_metric(metric, answers.candidate, answers.references),
        strict=True,
    )
    differences = [after - before for before, after in pairs]
    harm = 1 - gate.confidence
    if metric in BINARY_METRICS:
        lower, upper = exact_bounds(differences, alpha, harm)
        p_value = sign_test(differences)
    else:
        bounds = BootstrapBounds(differences, seed)
        lower, upper, p_value = bounds.lower(alpha), bounds.upper(harm), bounds.p_value(0)
    decided = measure.model_copy(
        update={
            "margin": gate.deciding[metric].margin,
            "difference": float(np.mean(differences)),
            "lower": lower,
            "upper": upper,
        }
    )
    return Measurement(decided, p_value)


def may_promote(measure: Measure, gate: GateSettings) -> bool:
    return (
        measure.name != "perplexity"
        and measure.name in gate.deciding
        and gate.deciding[measure.name].promotes
    )


def metric_improvement(measurement: Measurement, gate: GateSettings) -> Improvement:
    measure = measurement.measure
    name = f"{label(measure.name)} on {label(measure.set)}"
    if measure.examples < gate.minimum_examples:
        return Improvement(measure.set, False, too_few(name, measure.examples, gate))
    assert measure.lower is not None
    is_shown = measure.lower > 0
    reason = (
        f"{name}: {measure.difference:+.4f} over {measure.examples} examples, at least "
        f"{measure.lower:+.4f} with confidence, {'above' if is_shown else 'not above'} zero"
    )
    return Improvement(measure.set, is_shown, reason, measurement.p_value)


def metric_objection(measure: Measure) -> Objection | None:
    """Return None if the metric does not decide, or is not worse than its margin allows."""
    if measure.difference is None or measure.margin is None or measure.upper is None:
        return None
    if measure.difference >= -measure.margin:
        return None
    is_evident = measure.upper < 0
    reason = (
        f"{label(measure.name)} on {label(measure.set)}: worse by {-measure.difference:.4f} over "
        f"{measure.examples} examples, {measure.margin:.4f} is allowed"
    )
    return Objection(is_evident, reason + certainty(is_evident))
