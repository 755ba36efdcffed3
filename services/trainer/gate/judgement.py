"""Judgement of an attempt: the gate's decision with its alarm, its budget and the batch's fate.

Forgetting is what the regression set and the regression prompts find. It comes from the recipe, not
from the batch, so the decision is also made without these checks:

- If the candidate would be promoted without them, it only forgot: the run trains once more, at a
  gentler setting, and the second candidate is judged on everything again.
- If it would not be rejected without them, its batch is not quarantined.

Each judgement is a test of its own, which could promote by chance. A run's judgements are numbered
through its evaluations and attempts, and `evaluation_share` divides the error of the gate among the
numbers: 9/10 for the first, 9/100 for the second. So the probability that any of them promotes
wrongly is at most the gate's error, however the candidates depend on one another. The p-value of a
second attempt is divided by its share, since it is compared with the errors of whole gates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.trainer.gate.budget import GateHistory, with_budget
from services.trainer.gate.decision import decide
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.gate.promotion_level import evaluation_share
from services.trainer.gate.reward_hacking import (
    CandidateStep,
    apply_alarm,
    candidate_step,
    detect_reward_hacking,
)
from shared.config.gate import GateSettings
from shared.events import Digest, Verdict
from shared.identity import identity


@dataclass(frozen=True)
class Look:
    """One look of the gate at a run: evaluation `evaluation` (from 1). `retry_reason` says why the
    candidate is that of a second attempt, None for a first one.
    """

    run_id: str
    evaluation: int
    retry_reason: str | None = None

    @property
    def number(self) -> int:
        """Number of the look in its run, from 1: no two looks of a run share one."""
        return self.evaluation + (self.retry_reason is not None)

    @property
    def seed(self) -> int:
        return int(identity("gate", self.run_id, self.number)[:8], 16)


@dataclass(frozen=True)
class Judgement:
    """A verdict. `only_forgot` is true if the candidate would be promoted without the regression
    checks, and is not with them.
    """

    verdict: Verdict
    only_forgot: bool


def judge(
    evidence: GateEvidence,
    gate: GateSettings,
    baseline_version: str,
    look: Look,
    *,
    gates: GateHistory,
    history: Sequence[CandidateStep],
    reward: float | None,
    golden: Digest | None,
) -> Judgement:
    """Judge a candidate against `baseline_version`. `gates` and `history` are of the model's other
    runs, `reward` is the mean of the candidate's training examples, `golden` the digest of the
    golden examples.
    """
    level = gates.level(gate.confidence, look.number)
    verdict, otherwise = (
        decide(found, gate, baseline_version, level, seed=look.seed)
        for found in (evidence, _without_regression_checks(evidence))
    )
    rule, step = gate.reward_hacking, candidate_step(reward, verdict)
    alarm = detect_reward_hacking([*history, step], rule) if step else None
    verdict, otherwise = (apply_alarm(found, alarm, rule) for found in (verdict, otherwise))
    is_quarantined = verdict.decision == otherwise.decision == "reject"
    verdict = verdict.model_copy(update={"quarantined": is_quarantined})
    if look.retry_reason is not None:
        verdict = _second_attempt(verdict, look, look.retry_reason)
    return Judgement(
        with_budget(verdict, level, gates, gate, golden),
        only_forgot=otherwise.decision == "promote" != verdict.decision,
    )


def _without_regression_checks(evidence: GateEvidence) -> GateEvidence:
    return replace(
        evidence,
        regression=PairedScores((), ()),
        prompts_passed_baseline=(),
        prompts_passed_candidate=(),
    )


def _second_attempt(verdict: Verdict, look: Look, reason: str) -> Verdict:
    p_value = 1.0 if verdict.p_value is None else verdict.p_value
    return verdict.model_copy(
        update={
            "attempt": 2,
            "retried_because": reason,
            "reasons": (*verdict.reasons, reason),
            "p_value": min(1.0, p_value / evaluation_share(look.number)),
        }
    )
