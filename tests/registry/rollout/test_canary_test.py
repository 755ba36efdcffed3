"""Canary trial: stable assignment of users, and rare wrong decisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.registry.rollout.canary_test import (
    TrialEvidence,
    decide_trial,
    evaluate_pairs,
    in_canary_share,
)
from shared.config.canary import CanarySettings

RULE = CanarySettings()
USERS = [f"user {number}" for number in range(10_000)]
names = st.text(min_size=1, max_size=40)
shares = st.floats(0.001, 0.5)


def thumbs(share: float, count: int, seed: int) -> list[float]:
    """Return rewards of +1 with a probability of `share`, else -1."""
    return list(np.where(np.random.default_rng(seed).random(count) < share, 1.0, -1.0))


def trial(challenger: float, champion: float, run: int) -> str | None:
    """Return the outcome of a trial with these probabilities of +1, evaluated after every pair."""
    new, old = (
        thumbs(challenger, RULE.rewards, 2 * run),
        thumbs(champion, RULE.rewards, 2 * run + 1),
    )
    for pairs in range(RULE.minimum_rewards, RULE.rewards + 1):
        if outcome := decide_trial(
            evaluate_pairs(new[:pairs], old[:pairs], RULE), RULE, is_over=False
        ):
            return outcome
    return None


@given(model=names, version=names, user=names, share=shares)
def test_user_always_gets_the_same_version(
    model: str, version: str, user: str, share: float
) -> None:
    assert in_canary_share(model, version, "user", user, share) == in_canary_share(
        model, version, "user", user, share
    )


@given(version=names, user=names, first=shares, second=shares)
def test_larger_share_keeps_the_users_of_a_smaller_one(
    version: str, user: str, first: float, second: float
) -> None:
    smaller, larger = sorted((first, second))
    assert in_canary_share("support", version, "user", user, larger) or not in_canary_share(
        "support", version, "user", user, smaller
    )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_share_of_ten_thousand_users_is_as_configured(share: float) -> None:
    """Within four standard deviations, for three different challengers."""
    for version in ("v1_x", "v2_x", "v3_x"):
        part = sum(
            in_canary_share("support", version, "user", user, share) for user in USERS
        ) / len(USERS)
        assert abs(part - share) < 4 * (share * (1 - share) / len(USERS)) ** 0.5


def test_each_trial_selects_different_users() -> None:
    first, second = (
        {user for user in USERS if in_canary_share("support", version, "user", user, 0.1)}
        for version in ("v1_x", "v2_x")
    )
    assert len(first & second) < 0.2 * len(first)


def test_a_worse_challenger_is_withdrawn() -> None:
    assert {trial(0.4, 0.8, run) for run in range(30)} == {"worse"}


def test_better_challenger_is_promoted_early() -> None:
    assert {trial(0.8, 0.4, run) for run in range(30)} == {"better"}


def test_equally_good_challenger_is_rarely_misjudged() -> None:
    outcomes = [trial(0.7, 0.7, run) for run in range(100)]
    assert outcomes.count("worse") <= 5
    assert outcomes.count("better") <= 5
    assert outcomes.count("not worse") >= 90


def test_expired_trial_promotes_unless_evidence_says_worse() -> None:
    no_evidence = TrialEvidence(0, 1.0, 1.0, 0.0, 0.0)
    assert decide_trial(no_evidence, RULE, is_over=False) is None
    assert decide_trial(no_evidence, RULE, is_over=True) == "not worse"
    assert decide_trial(TrialEvidence(40, 50.0, 1.0, -0.5, 0.5), RULE, is_over=True) == "worse"
    assert decide_trial(TrialEvidence(90, 50.0, 50.0, 0.0, 0.0), RULE, is_over=False) == "worse", (
        "with evidence for both, the safe decision wins"
    )


@given(new=st.lists(st.floats(-1, 1), max_size=80), old=st.lists(st.floats(-1, 1), max_size=80))
def test_evidence_is_symmetric(new: list[float], old: list[float]) -> None:
    result, swapped = evaluate_pairs(new, old, RULE), evaluate_pairs(old, new, RULE)
    assert (result.worse, result.better, result.pairs) == (
        swapped.better,
        swapped.worse,
        swapped.pairs,
    )


def test_rule_that_can_never_decide_is_refused() -> None:
    with pytest.raises(ValidationError, match="minimum_rewards"):
        CanarySettings(rewards=20, minimum_rewards=30)
