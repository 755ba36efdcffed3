"""The gate's decision: values derived by hand, its stated error rate, and its refusals."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.gate.answer_metrics import GreedyAnswers
from services.trainer.gate.decision import decide
from services.trainer.gate.evidence import GateEvidence, PairedScores
from shared.config.gate import AnswerMeasure, DecidingMeasure, GateSettings
from shared.events import Verdict

GATE = GateSettings(
    improvement_margin=0, harm_margin=0.02, regression_margin=0.5, minimum_examples=5
)
NOTHING = PairedScores((), ())

Scores = Sequence[float]


def decide_case(
    held_out: Scores = (),
    golden: Scores = (),
    regression: Scores = (),
    prompts: tuple[Sequence[bool], Sequence[bool]] = ((), ()),
    seed: int = 1,
) -> Verdict:
    """Decide on differences to a champion that scores -1 everywhere."""
    first, second, third = (
        PairedScores([-1.0] * len(differences), [d - 1.0 for d in differences])
        for differences in (held_out, golden, regression)
    )
    return decide(GateEvidence(first, second, third, *prompts), GATE, "v1", alpha=0.05, seed=seed)


def around(mean: float, count: int = 20, spread: float = 0.05) -> list[float]:
    """Return differences with a given mean, evenly spread."""
    return [mean + spread * (2 * index / (count - 1) - 1) for index in range(count)]


@pytest.mark.parametrize("examples", [8, 20, 60])
def test_null_candidates_are_rarely_promoted(examples: int) -> None:
    """Differences are drawn around zero: of 400 verdicts at alpha = 0.05, 20 may err; 33 is three
    standard deviations more.
    """
    random = np.random.default_rng(examples)
    verdicts = [
        decide_case(
            random.normal(0, 0.01, examples).tolist(),
            random.standard_t(5, examples).tolist(),
            seed=seed,
        ).decision
        for seed in range(400)
    ]
    assert verdicts.count("promote") <= 33


def test_better_candidate_is_promoted() -> None:
    verdict = decide_case(held_out=around(0.1), golden=around(0.0), regression=around(-0.1))
    assert verdict.decision == "promote"
    assert verdict.baseline_version == "v1"
    assert verdict.reasons[0].startswith(
        "held-out: +0.1000 nats per token over 20 examples, at least +0.0"
    )


def test_improvement_on_golden_alone_promotes() -> None:
    assert decide_case(golden=around(0.1)).decision == "promote"


def test_poisoned_batch_is_rejected() -> None:
    """The candidate is better on poisoned held-out examples, and much worse on the golden set."""
    verdict = decide_case(held_out=around(1.0), golden=around(-0.5, spread=0.4))
    assert verdict.decision == "reject"
    assert (
        verdict.reasons[0]
        == "golden: worse by 0.5000 nats per token over 20 examples, 0.0200 is allowed"
    )


def test_held_out_gain_with_uncertain_golden_is_inconclusive() -> None:
    """Better on held-out examples, which may be poisoned as well; on the golden set no worse on
    average, but without certainty.
    """
    verdict = decide_case(held_out=around(1.0), golden=around(0.0, spread=0.4))
    assert verdict.decision == "inconclusive"
    assert "held-out alone is not enough" in verdict.reasons[0]
    assert decide_case(held_out=around(1.0), golden=around(0.0, spread=0.01)).decision == "promote"


def test_harm_within_noise_blocks_without_rejecting() -> None:
    verdict = decide_case(held_out=around(0.1), golden=[-0.4, 0.3, -0.2, 0.1])
    assert verdict.decision == "inconclusive"
    assert "to be sure" in verdict.reasons[0]


def test_forgetting_beyond_the_margin_is_rejected() -> None:
    assert decide_case(held_out=around(0.5), regression=around(-0.6)).decision == "reject"


def test_too_few_examples_are_inconclusive() -> None:
    verdict = decide_case(held_out=[1.0, 1.1, 0.9, 1.0])
    assert verdict.decision == "inconclusive"
    assert "4 examples, 5 are needed" in verdict.reasons[0]


def test_newly_failing_regression_prompt_rejects() -> None:
    verdict = decide_case(held_out=around(0.5), prompts=((True, True, False), (True, False, False)))
    assert verdict.decision == "reject"
    assert (
        verdict.reasons[0]
        == "regression prompts: number 2 passed with v1 and fail with the candidate"
    )
    assert verdict.comparisons[3].difference == pytest.approx(-1 / 3)


def test_prompt_that_failed_before_does_not_block() -> None:
    assert decide_case(held_out=around(0.5), prompts=((False,), (False,))).decision == "promote"


def test_candidate_equal_to_the_champion_is_inconclusive() -> None:
    assert (
        decide_case(held_out=[0.0] * 50, golden=[0.0] * 50, regression=[0.0] * 9).decision
        == "inconclusive"
    )


def test_empty_sets_are_inconclusive() -> None:
    assert (
        decide(
            GateEvidence(NOTHING, NOTHING, NOTHING, (), ()), GATE, "v0", alpha=0.05, seed=0
        ).decision
        == "inconclusive"
    )


@given(
    st.lists(st.floats(-2, 2), min_size=5, max_size=25),
    st.lists(st.floats(-2, 2), min_size=5, max_size=25),
)
def test_promoted_candidates_are_within_every_margin(
    held_out: list[float], golden: list[float]
) -> None:
    verdict = decide_case(held_out, golden)
    if verdict.decision == "promote":
        assert all(
            comparison.difference >= -comparison.margin - 1e-9 for comparison in verdict.comparisons
        )
    assert decide_case(held_out, golden) == verdict


RIGHT, WRONG = '{"queue":"a"}', '{"queue":"b"}'


def decide_exact_match(
    before: int, after: int, count: int = 20, promotes: bool = False, decides: bool = True
) -> Verdict:
    """Decide on `count` golden answers of which the champion has the first `before` right and the
    candidate the first `after`; likelihoods do not change.
    """
    baseline, candidate = ([RIGHT] * right + [WRONG] * (count - right) for right in (before, after))
    same = PairedScores([-1.0] * count, [-1.0] * count)
    evidence = GateEvidence(
        NOTHING,
        same,
        NOTHING,
        (),
        (),
        golden_answers=GreedyAnswers([RIGHT] * count, baseline, candidate),
    )
    deciding: dict[AnswerMeasure, DecidingMeasure] = (
        {"exact_match": DecidingMeasure(margin=0.05, promotes=promotes)} if decides else {}
    )
    return decide(
        evidence, GATE.model_copy(update={"deciding": deciding}), "v1", alpha=0.05, seed=1
    )


def test_metrics_are_only_reported_by_default() -> None:
    """Scores of -1 nat are a perplexity of e; 10 of 20 are right, then none; all are JSON."""
    verdict = decide_exact_match(10, 0, decides=False)
    values = {measure.name: (measure.baseline, measure.candidate) for measure in verdict.measures}
    assert verdict.decision == "inconclusive"
    assert values["perplexity"][1] == pytest.approx(2.71828, abs=1e-4)
    assert values["exact_match"] == (0.5, 0.0)
    assert values["json_validity"] == (1.0, 1.0)
    assert values["bleu"][0] > values["bleu"][1]
    assert values["chrf"][0] > values["chrf"][1]
    assert all(measure.difference is None for measure in verdict.measures)


def test_deciding_metric_rejects_with_evidence_or_blocks() -> None:
    """Ten losses of ten have a probability of 1/1024 under a fair coin. Two of two have 1/4, which
    shows nothing, but 2/20 is more than the margin.
    """
    rejected, blocked, allowed = (
        decide_exact_match(10, 0),
        decide_exact_match(2, 0),
        decide_exact_match(1, 0),
    )
    assert rejected.decision == "reject"
    assert (
        rejected.reasons[0]
        == "exact match on golden: worse by 0.5000 over 20 examples, 0.0500 is allowed"
    )
    assert blocked.decision == "inconclusive"
    assert "to be sure" in blocked.reasons[0]
    assert "exact match" not in allowed.reasons[0]


def test_promoting_metric_shares_the_error() -> None:
    """Four ways to promote, each with alpha = 0.05 / 4 = 1/80: seven wins of seven have a
    probability of 1/128, six of six of 1/64.
    """
    assert decide_exact_match(0, 7, promotes=True).decision == "promote"
    assert decide_exact_match(0, 6, promotes=True).decision == "inconclusive"
    assert decide_exact_match(0, 20, promotes=False).decision == "inconclusive"


def test_metric_gain_on_held_out_needs_certainty_on_golden() -> None:
    answers = GreedyAnswers([RIGHT] * 20, [WRONG] * 20, [RIGHT] * 20)
    gate = GATE.model_copy(
        update={"deciding": {"exact_match": DecidingMeasure(margin=0.05, promotes=True)}}
    )
    same = PairedScores([-1.0] * 20, [-1.0] * 20)
    unsure = PairedScores([-1.0] * 20, [d - 1.0 for d in around(0.0, spread=0.4)])
    decisions = [
        decide(
            GateEvidence(same, golden, NOTHING, (), (), held_out_answers=answers),
            gate,
            "v1",
            alpha=0.05,
            seed=1,
        ).decision
        for golden in (same, unsure)
    ]
    assert decisions == ["promote", "inconclusive"]


def test_gain_below_the_improvement_margin_is_inconclusive() -> None:
    gate = GATE.model_copy(update={"improvement_margin": 0.005})
    evidence = GateEvidence(
        NOTHING,
        PairedScores([-1.0] * 20, [d - 1.0 for d in around(0.001, spread=0.0001)]),
        NOTHING,
        (),
        (),
    )
    assert decide(evidence, GATE, "v1", alpha=0.05, seed=1).decision == "promote"
    assert decide(evidence, gate, "v1", alpha=0.05, seed=1).decision == "inconclusive"
