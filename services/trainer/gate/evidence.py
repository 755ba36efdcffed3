"""Evidence of the gate: results of candidate and baseline on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.trainer.gate.answer_metrics import NO_ANSWERS, GreedyAnswers


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
