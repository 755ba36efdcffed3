"""Answer metrics, reported next to the likelihood that the gate decides by: perplexity, BLEU, chrF,
exact match, JSON validity.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's, in points from 0 to 100, of a
whole set; exact match and JSON validity are shares. All but perplexity are of greedy answers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from shared.config.gate import AnswerMeasure


@dataclass(frozen=True)
class GreedyAnswers:
    """Reference answers of some prompts, and the greedy answers of baseline and candidate, in the
    same order.
    """

    references: Sequence[str] = ()
    baseline: Sequence[str] = ()
    candidate: Sequence[str] = ()


Texts = Sequence[str]

NO_ANSWERS = GreedyAnswers()


def perplexity(scores: Sequence[float]) -> float:
    """Return the perplexity of answers with these mean log-likelihoods per token, each answer
    weighted equally; 1 is certainty.
    """
    return exp(min(700.0, -sum(scores) / len(scores)))


def set_metric(metric: AnswerMeasure, answers: Texts, references: Texts) -> float:
    """Return a metric of a whole, non-empty set."""
    match metric:
        case "bleu":
            return float(BLEU().corpus_score(answers, [references]).score)
        case "chrf":
            return float(CHRF().corpus_score(answers, [references]).score)
        case _:
            values = answer_metric(metric, answers, references)
            return sum(values) / len(values)


def answer_metric(metric: AnswerMeasure, answers: Texts, references: Texts) -> list[float]:
    """Return a metric of each answer, for paired comparison. BLEU uses the n-gram orders that an
    answer is long enough for.
    """
    score = _PER_ANSWER[metric]
    return [score(answer, reference) for answer, reference in zip(answers, references, strict=True)]


def _sentence_score(metric: Metric) -> Callable[[str, str], float]:
    return lambda answer, reference: float(metric.sentence_score(answer, [reference]).score)


def _is_exact(answer: str, reference: str) -> float:
    return float(answer.strip() == reference.strip())


def _is_json(answer: str, _: str) -> float:
    """1 for an object or an array without other text; a bare word or number is not the JSON that
    a program asks for.
    """
    try:
        return float(isinstance(json.loads(answer), dict | list))
    except (ValueError, RecursionError):
        return 0.0


_PER_ANSWER: Mapping[AnswerMeasure, Callable[[str, str], float]] = {
    "bleu": _sentence_score(BLEU(effective_order=True)),
    "chrf": _sentence_score(CHRF()),
    "exact_match": _is_exact,
    "json_validity": _is_json,
}

BINARY_METRICS: frozenset[AnswerMeasure] = frozenset({"exact_match", "json_validity"})
ANSWER_METRICS: tuple[AnswerMeasure, ...] = ("bleu", "chrf", "exact_match", "json_validity")
