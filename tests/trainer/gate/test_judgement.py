"""Judgement of attempts: which are retried, which batches are quarantined, and the error that both
looks may spend together.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from services.trainer.gate.budget import GateHistory
from services.trainer.gate.evidence import GateEvidence, PairedScores
from services.trainer.gate.judgement import Judgement, Look, judge
from services.trainer.gate.promotion_level import PastGate, evaluation_share
from services.trainer.gate.reward_hacking import CandidateStep
from shared.config.gate import GateSettings

GATE = GateSettings(minimum_examples=5)
RETRY = "second attempt, at learning rate 0.000125 instead of 0.001"
PASSED, FAILED = ((True,), (True,)), ((True,), (False,))
FORGOTTEN, KEPT = [-0.8] * 12, [0.0] * 12

Scores = Sequence[float]


def judge_case(
    golden: Scores,
    regression: Scores = KEPT,
    prompts: tuple[Sequence[bool], Sequence[bool]] = PASSED,
    *,
    held_out: Scores = (),
    look: Look | None = None,
    gate: GateSettings = GATE,
    history: Sequence[CandidateStep] = (),
    reward: float | None = None,
    gates: GateHistory | None = None,
) -> Judgement:
    """Judge differences to a champion that scores -1 everywhere."""
    first, second, third = (
        PairedScores([-1.0] * len(differences), [d - 1.0 for d in differences])
        for differences in (held_out, golden, regression)
    )
    return judge(
        GateEvidence(first, second, third, *prompts),
        gate,
        "v1",
        look or Look("r", 1),
        gates=gates or GateHistory(),
        history=history,
        reward=reward,
        golden=None,
    )


def around(mean: float, count: int = 24) -> list[float]:
    return [mean + 0.1 * (2 * index / (count - 1) - 1) for index in range(count)]


@pytest.mark.parametrize(
    ("regression", "prompts"),
    [(KEPT, FAILED), (FORGOTTEN, PASSED), (FORGOTTEN, FAILED), ([-9.0, 8.9, -1.6], PASSED)],
    ids=["a prompt", "the set", "both", "the set without certainty"],
)
def test_candidate_that_only_forgot_is_retried(
    regression: Scores, prompts: tuple[Sequence[bool], Sequence[bool]]
) -> None:
    found = judge_case(around(0.3), regression, prompts)
    assert found.verdict.decision in ("reject", "inconclusive")
    assert found.only_forgot
    assert not found.verdict.quarantines_batch


def test_promoted_candidate_is_not_retried() -> None:
    found = judge_case(around(0.3))
    assert (found.verdict.decision, found.only_forgot) == ("promote", False)


def test_forgetting_without_a_gain_is_not_retried() -> None:
    """A gentler training would not gain more. The batch is not to blame all the same."""
    found = judge_case(around(0.0), prompts=FAILED)
    assert (found.verdict.decision, found.only_forgot) == ("reject", False)
    assert not found.verdict.quarantines_batch


def test_harm_besides_forgetting_quarantines_the_batch() -> None:
    found = judge_case(around(-0.5), prompts=FAILED, held_out=around(0.5))
    assert (found.verdict.decision, found.only_forgot) == ("reject", False)
    assert found.verdict.quarantines_batch


def test_candidate_under_the_alarm_is_not_retried() -> None:
    """The alarm would block the second candidate as well."""
    history = [CandidateStep(0.1 * step, -0.1) for step in range(3)]
    cases = [
        judge_case(
            around(0.3),
            prompts=FAILED,
            held_out=around(0.0),
            history=history,
            reward=0.9,
            gate=GATE.model_copy(
                update={"reward_hacking": GATE.reward_hacking.model_copy(update={"blocks": blocks})}
            ),
        )
        for blocks in (True, False)
    ]
    assert all(found.verdict.alarm for found in cases)
    assert [found.only_forgot for found in cases] == [False, True]


def test_second_attempt_says_why_and_spends_the_second_share() -> None:
    first, second = (judge_case(around(0.3), look=Look("r", 1, retry)) for retry in (None, RETRY))
    assert (first.verdict.attempt, first.verdict.retried_because) == (1, None)
    assert (second.verdict.attempt, second.verdict.retried_because) == (2, RETRY)
    assert second.verdict.reasons == (*second.verdict.reasons[:-1], RETRY)
    budgets = first.verdict.budget, second.verdict.budget
    assert budgets[0] is not None
    assert budgets[1] is not None
    assert budgets[1].level == pytest.approx(budgets[0].level / 10)


def test_no_two_looks_of_a_run_share_a_number() -> None:
    """A retry after any evaluation, which the retried candidate's next evaluations follow."""
    for retried_at in (1, 2, 3):
        looks = [Look("r", evaluation) for evaluation in range(1, retried_at + 1)]
        looks += [Look("r", evaluation, RETRY) for evaluation in range(retried_at, 6)]
        assert [look.number for look in looks] == list(range(1, 7))
        assert len({look.seed for look in looks}) == 6
        assert sum(evaluation_share(look.number) for look in looks) <= 1


@pytest.mark.parametrize("mean", [0.02, 0.03, 0.04, 0.05, 0.06, 0.08])
def test_p_value_of_a_second_attempt_is_one_of_the_gate(mean: float) -> None:
    """It is at most the gate's whole error exactly if the second attempt is promoted with its
    share of it. So it counts the look that failed.
    """
    verdict = judge_case(around(mean), look=Look("r", 1, RETRY)).verdict
    whole = GateHistory().level(GATE.confidence, 1) / evaluation_share(1)
    assert verdict.p_value is not None
    assert (verdict.p_value <= whole) == (verdict.decision == "promote")


def test_both_looks_together_err_no_more_than_the_gate() -> None:
    """Null candidates, each looked at twice on independent evidence, which is the worst case: most
    runs are looked at once. The gate's error is 5 % here, after many promotions. It allows 10 of
    200 runs; 19 is three standard deviations more. Second looks may spend a tenth of the first
    ones' 9, and 4 is three standard deviations more.
    """
    random = np.random.default_rng(5)
    gate = GATE.model_copy(update={"improvement_margin": 0.0})
    rich = GateHistory([PastGate(True, 1e-6)] * 40)
    assert rich.level(gate.confidence, 1) == pytest.approx(0.9 * 0.05)
    by_second = by_any = 0
    for run in range(200):
        decisions = [
            judge_case(
                random.normal(0, 0.1, 24).tolist(),
                look=Look(str(run), 1, retry),
                gate=gate,
                gates=rich,
            ).verdict.decision
            for retry in (None, RETRY)
        ]
        by_second += decisions[1] == "promote"
        by_any += "promote" in decisions
    assert by_any <= 19
    assert by_second <= 4
