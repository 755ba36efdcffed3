"""Sequential test: detects a worse champion, with rare false alarms however often it is run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.registry.rollout.sequential_test import compute_evidence, is_worse
from shared.config.monitor import MonitorSettings

RULE = MonitorSettings()
rewards = st.lists(st.floats(-1, 1), max_size=200)


def thumbs(share: float, count: int, seed: int) -> list[float]:
    """Return rewards of +1 with a probability of `share`, else -1."""
    return list(np.where(np.random.default_rng(seed).random(count) < share, 1.0, -1.0))


def test_steady_champion_is_rarely_called_worse() -> None:
    alarms = sum(
        is_worse(
            compute_evidence(thumbs(0.7, 1000, 2 * run), thumbs(0.7, 1000, 2 * run + 1), RULE), RULE
        )
        for run in range(200)
    )
    assert alarms <= 0.05 * 200


def test_better_champion_is_never_called_worse_in_100_runs() -> None:
    assert not any(
        is_worse(
            compute_evidence(thumbs(0.8, 1000, 2 * run), thumbs(0.6, 1000, 2 * run + 1), RULE), RULE
        )
        for run in range(100)
    )


def test_drop_is_detected_in_all_of_50_runs() -> None:
    assert all(
        is_worse(
            compute_evidence(thumbs(0.5, 1000, 2 * run), thumbs(0.7, 1000, 2 * run + 1), RULE), RULE
        )
        for run in range(50)
    )


def test_tolerated_drop_is_not_called_worse() -> None:
    lenient = MonitorSettings(tolerated_drop=0.5)
    evidence = [
        compute_evidence(thumbs(0.6, 1000, 2 * run), thumbs(0.7, 1000, 2 * run + 1), lenient)
        for run in range(50)
    ]
    assert not any(is_worse(value, lenient) for value in evidence)


def test_too_few_rewards_never_decide() -> None:
    few = [-1.0] * (RULE.minimum_rewards - 1)
    assert not is_worse(compute_evidence(few, [1.0] * 500, RULE), RULE)
    assert is_worse(compute_evidence([*few, -1.0], [1.0] * 500, RULE), RULE)


@given(champion=rewards, previous=rewards)
def test_e_value_never_decreases(champion: list[float], previous: list[float]) -> None:
    rule = MonitorSettings(minimum_rewards=2)
    wealth = [
        compute_evidence(champion[:count], previous, rule).e_value
        for count in range(len(champion) + 1)
    ]
    running_maximum = [max(1.0, *wealth[: index + 1]) for index in range(len(wealth))]
    assert [max(1.0, value) for value in wealth] == pytest.approx(running_maximum)


@given(champion=rewards, previous=rewards)
def test_e_value_is_the_mean_capital_over_all_bets(
    champion: list[float], previous: list[float]
) -> None:
    rule = MonitorSettings(minimum_rewards=2)
    evidence = compute_evidence(champion, previous, rule)
    pairs = list(zip(champion, previous, strict=False))
    shares = [number / 20 for number in range(1, 20)]
    owned, best = [1.0] * len(shares), 0.0
    for number, (earned, before) in enumerate(pairs, start=1):
        owned = [
            money * (1 + share * (before - earned) / 2)
            for money, share in zip(owned, shares, strict=True)
        ]
        if number >= 2:
            best = max(best, sum(owned) / len(owned))
    assert evidence.pairs == len(pairs)
    assert evidence.e_value == pytest.approx(best if len(pairs) >= 2 else 1.0, rel=1e-6)


def test_thousands_of_rewards_do_not_overflow() -> None:
    assert is_worse(compute_evidence([-1.0] * 5000, [1.0] * 5000, RULE), RULE)


def test_rule_that_can_never_decide_is_refused() -> None:
    with pytest.raises(ValidationError, match="most_rewards"):
        MonitorSettings(minimum_rewards=100, most_rewards=50)
