"""What is known of how good a version is: its verdict and, in short, the scores that people ask
for. Pure.
"""

from collections.abc import Mapping
from typing import Literal

from services.registry.api.views import View
from services.registry.store.queries import MeanReward
from services.registry.store.tables import Json
from shared.events import Comparison, Measure, Verdict


def verdict_of(stored: Json | None) -> Verdict | None:
    """A verdict as it was kept; what older ones do not have is as it is in an event."""
    return Verdict.model_validate(stored) if stored else None


def comparison(verdict: Verdict | None, name: str) -> Comparison | None:
    return (
        next((found for found in verdict.comparisons if found.name == name), None)
        if verdict
        else None
    )


def measure(verdict: Verdict | None, name: str) -> Measure | None:
    """One of the measures of answers: on what was held out, or else on the golden set."""
    found = [each for each in verdict.measures if each.name == name] if verdict else []
    return next(iter(sorted(found, key=lambda each: each.set != "held_out")), None)


def with_scores(row: View, rewards: Mapping[str, MeanReward]) -> View:
    """A version's view with its verdict as a value, its held-out score, its share of exact answers
    and its reward in use.
    """
    verdict = verdict_of(row["verdict"])
    held_out, exact = comparison(verdict, "held_out"), measure(verdict, "exact_match")
    return {
        **row,
        "verdict": verdict,
        "held_out": held_out.candidate if held_out else None,
        "exact_match": exact.candidate if exact else None,
        "reward": rewards.get(row["version"]),
    }


def trend(versions: list[View]) -> list[tuple[str, float]]:
    """The held-out score of each version that has one and is no challenger, oldest first, after
    what the first was compared with.

    Each stands against the examples that were held out at its time, so a step is surer than the
    whole line.
    """
    known = [
        row
        for row in reversed(versions)
        if row["held_out"] is not None and "challenger" not in row["aliases"]
    ]
    if not known:
        return []
    first = comparison(known[0]["verdict"], "held_out")
    assert first is not None, "a held-out score is that of a comparison"
    return [
        (known[0]["verdict"].baseline_version, first.baseline),
        *((row["version"], row["held_out"]) for row in known),
    ]


IntervalSign = Literal["good", "bad", "unsure"]


def interval_sign(found: Comparison | Measure) -> IntervalSign:
    """Whether an interval lies above zero, below it, or on both sides."""
    if found.lower is None or found.upper is None or found.lower <= 0 <= found.upper:
        return "unsure"
    return "good" if found.lower > 0 else "bad"
