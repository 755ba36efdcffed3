"""The gate: hand-derived numbers, the error that it promises, and what it refuses."""

from collections.abc import Sequence
from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.gate.answer_metrics import GreedyAnswers
from services.trainer.gate.decision import GateEvidence, PairedScores, alpha_for_gate, decide
from shared.config.model_file import AnswerMeasure, DecidingMeasure, GateSettings
from shared.events import Verdict

GATE = GateSettings(
    improvement_margin=0, harm_margin=0.02, retention_margin=0.5, minimum_examples=5
)
NOTHING = PairedScores((), ())

Scores = Sequence[float]


def decide_case(
    held_out: Scores = (),
    golden: Scores = (),
    retention: Scores = (),
    canaries: tuple[Sequence[bool], Sequence[bool]] = ((), ()),
    seed: int = 1,
) -> Verdict:
    """The verdict on differences, over a champion that scores -1 everywhere."""
    first, second, third = (
        PairedScores([-1.0] * len(differences), [d - 1.0 for d in differences])
        for differences in (held_out, golden, retention)
    )
    return decide(GateEvidence(first, second, third, *canaries), GATE, "v1", alpha=0.05, seed=seed)


def around(mean: float, count: int = 20, spread: float = 0.05) -> list[float]:
    """Differences with a given mean, evenly spread."""
    return [mean + spread * (2 * place / (count - 1) - 1) for place in range(count)]


def test_the_error_of_all_gates_of_all_shards_adds_up_to_alpha() -> None:
    """The sum of 6 / (π² k²) over k is 1; a thousand terms leave less than 0.1 % of it."""
    total = sum(alpha_for_gate(0.95, gate, shards=4) for gate in range(1, 1000) for _ in range(4))
    evaluated = sum(alpha_for_gate(0.95, 1, evaluation) for evaluation in range(1, 1000))
    assert (
        total < 0.05 * 36 / pi**4 * pi**2 / 6
    )  # every gate evaluated once spends 6/π² of its part
    assert total == pytest.approx(0.05 * 6 / pi**2, rel=1e-3)
    assert evaluated == pytest.approx(0.05 * 6 / pi**2, rel=1e-3)
    assert alpha_for_gate(0.95, 1) == pytest.approx(0.05 * 36 / pi**4)


@pytest.mark.parametrize("examples", [8, 20, 60])
def test_candidates_that_are_no_better_are_seldom_promoted(examples: int) -> None:
    """Differences drawn around zero: of 400 verdicts at alpha = 0.05, 20 may err; 33 is three
    standard deviations above.
    """
    draw = np.random.default_rng(examples)
    verdicts = [
        decide_case(
            draw.normal(0, 0.01, examples).tolist(),
            draw.standard_t(5, examples).tolist(),
            seed=seed,
        ).decision
        for seed in range(400)
    ]
    assert verdicts.count("promote") <= 33


def test_candidates_that_are_better_are_promoted() -> None:
    verdict = decide_case(held_out=around(0.1), golden=around(0.0), retention=around(-0.1))
    assert verdict.decision == "promote"
    assert verdict.baseline_version == "v1"
    assert verdict.reasons[0].startswith(
        "held-out: +0.1000 nats per token over 20 examples, at least +0.0"
    )


def test_a_clear_improvement_on_golden_alone_is_enough() -> None:
    assert decide_case(golden=around(0.1)).decision == "promote"


def test_poisoned_batches_are_rejected() -> None:
    """They are better on held-out examples that are poisoned alike, and much worse on the golden
    set.
    """
    verdict = decide_case(held_out=around(1.0), golden=around(-0.5, spread=0.4))
    assert verdict.decision == "reject"
    assert (
        verdict.reasons[0]
        == "golden: worse by 0.5000 nats per token over 20 examples, 0.0200 is allowed"
    )


def test_poison_that_leaves_the_golden_set_uncertain_is_not_promoted() -> None:
    """Better on held-out examples, which may be poisoned alike; on the golden set no worse on
    average, but nobody can be sure.
    """
    verdict = decide_case(held_out=around(1.0), golden=around(0.0, spread=0.4))
    assert verdict.decision == "inconclusive"
    assert "held-out alone is not enough" in verdict.reasons[0]
    assert decide_case(held_out=around(1.0), golden=around(0.0, spread=0.01)).decision == "promote"


def test_harm_within_noise_blocks_and_does_not_condemn() -> None:
    verdict = decide_case(held_out=around(0.1), golden=[-0.4, 0.3, -0.2, 0.1])
    assert verdict.decision == "inconclusive"
    assert "to be sure" in verdict.reasons[0]


def test_forgetting_beyond_the_margin_is_rejected() -> None:
    assert decide_case(held_out=around(0.5), retention=around(-0.6)).decision == "reject"


def test_too_few_examples_are_inconclusive() -> None:
    verdict = decide_case(held_out=[1.0, 1.1, 0.9, 1.0])
    assert verdict.decision == "inconclusive"
    assert "4 examples, 5 are needed" in verdict.reasons[0]


def test_a_canary_that_newly_fails_rejects() -> None:
    verdict = decide_case(
        held_out=around(0.5), canaries=((True, True, False), (True, False, False))
    )
    assert verdict.decision == "reject"
    assert verdict.reasons[0] == "canaries: number 2 passed with v1 and fail with the candidate"
    assert verdict.comparisons[3].difference == pytest.approx(-1 / 3)


def test_a_canary_that_failed_before_does_not_block() -> None:
    assert decide_case(held_out=around(0.5), canaries=((False,), (False,))).decision == "promote"


def test_a_candidate_that_is_the_champion_is_inconclusive() -> None:
    assert (
        decide_case(held_out=[0.0] * 50, golden=[0.0] * 50, retention=[0.0] * 9).decision
        == "inconclusive"
    )


def test_nothing_to_compare_is_inconclusive() -> None:
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
def test_no_set_is_worse_than_its_margin_in_what_is_promoted(
    held_out: list[float], golden: list[float]
) -> None:
    verdict = decide_case(held_out, golden)
    if verdict.decision == "promote":
        assert all(
            comparison.difference >= -comparison.margin - 1e-9 for comparison in verdict.comparisons
        )
    assert decide_case(held_out, golden) == verdict


RIGHT, WRONG = '{"queue":"a"}', '{"queue":"b"}'


def exact(
    before: int, after: int, of: int = 20, promotes: bool = False, decides: bool = True
) -> Verdict:
    """The verdict when of `of` golden answers the first `before` were right and the first `after`
    are; likelihoods do not change.
    """
    baseline, candidate = ([RIGHT] * right + [WRONG] * (of - right) for right in (before, after))
    same = PairedScores([-1.0] * of, [-1.0] * of)
    evidence = GateEvidence(
        NOTHING,
        same,
        NOTHING,
        (),
        (),
        golden_answers=GreedyAnswers([RIGHT] * of, baseline, candidate),
    )
    deciding: dict[AnswerMeasure, DecidingMeasure] = (
        {"exact_match": DecidingMeasure(margin=0.05, promotes=promotes)} if decides else {}
    )
    return decide(
        evidence, GATE.model_copy(update={"deciding": deciding}), "v1", alpha=0.05, seed=1
    )


def test_measures_are_reported_and_decide_nothing_unless_told_to() -> None:
    """Likelihoods of -1 nat are a perplexity of e; 10 of 20 right, then none; all of them are JSON."""
    verdict = exact(10, 0, decides=False)
    found = {measure.name: (measure.baseline, measure.candidate) for measure in verdict.measures}
    assert verdict.decision == "inconclusive"
    assert found["perplexity"][1] == pytest.approx(2.71828, abs=1e-4)
    assert found["exact_match"] == (0.5, 0.0)
    assert found["json_validity"] == (1.0, 1.0)
    assert found["bleu"][0] > found["bleu"][1]
    assert found["chrf"][0] > found["chrf"][1]
    assert all(measure.difference is None for measure in verdict.measures)


def test_a_deciding_measure_rejects_on_evidence_and_blocks_without() -> None:
    """Ten of ten lost: chance 1/1024 by a coin. Two of two lost: 1/4, which shows nothing, but 2/20
    is more than the margin.
    """
    condemned, held_back, allowed = exact(10, 0), exact(2, 0), exact(1, 0)
    assert condemned.decision == "reject"
    assert (
        condemned.reasons[0]
        == "exact match on golden: worse by 0.5000 over 20 examples, 0.0500 is allowed"
    )
    assert held_back.decision == "inconclusive"
    assert "to be sure" in held_back.reasons[0]
    assert "exact match" not in allowed.reasons[0]


def test_a_measure_promotes_where_it_may_and_shares_the_error() -> None:
    """Four ways to promote, each with 0.05 / 4 = 1/80: seven wins of seven have the chance 1/128,
    six of six 1/64.
    """
    assert exact(0, 7, promotes=True).decision == "promote"
    assert exact(0, 6, promotes=True).decision == "inconclusive"
    assert exact(0, 20, promotes=False).decision == "inconclusive"


def test_a_measure_promotes_on_held_out_only_what_is_shown_not_to_be_worse_on_golden() -> None:
    said = GreedyAnswers([RIGHT] * 20, [WRONG] * 20, [RIGHT] * 20)
    gate = GATE.model_copy(
        update={"deciding": {"exact_match": DecidingMeasure(margin=0.05, promotes=True)}}
    )
    same = PairedScores([-1.0] * 20, [-1.0] * 20)
    unsure = PairedScores([-1.0] * 20, [d - 1.0 for d in around(0.0, spread=0.4)])
    decisions = [
        decide(
            GateEvidence(same, golden, NOTHING, (), (), held_out_answers=said),
            gate,
            "v1",
            alpha=0.05,
            seed=1,
        ).decision
        for golden in (same, unsure)
    ]
    assert decisions == ["promote", "inconclusive"]


def test_a_gain_that_is_certain_and_next_to_nothing_is_not_promoted() -> None:
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
