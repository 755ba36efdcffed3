"""Verdicts and summary scores of versions. Pure."""

from collections.abc import Mapping
from typing import Literal

from services.registry.api.views import View
from services.registry.store.queries import MeanReward
from services.registry.store.tables import Json
from shared.events import Comparison, Measure, Verdict


def verdict_of(stored: Json | None) -> Verdict | None:
    """Parse a stored verdict; fields missing in older ones get the defaults of the event."""
    return Verdict.model_validate(stored) if stored else None


def comparison(verdict: Verdict | None, name: str) -> Comparison | None:
    return next((row for row in verdict.comparisons if row.name == name), None) if verdict else None


def measure(verdict: Verdict | None, name: str) -> Measure | None:
    """Return an answer metric, measured on the held-out set or else on the golden set."""
    measures = [row for row in verdict.measures if row.name == name] if verdict else []
    return next(iter(sorted(measures, key=lambda row: row.set != "held_out")), None)


def with_scores(row: View, rewards: Mapping[str, MeanReward]) -> View:
    """Add the parsed verdict, held-out score, exact-match rate and live reward to a version."""
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
    """Return the held-out score of each version except challengers, oldest first, after the
    baseline of the first one.

    Each score is over the examples held out at its time, so single steps are more reliable than the
    whole line.
    """
    scored = [
        row
        for row in reversed(versions)
        if row["held_out"] is not None and "challenger" not in row["aliases"]
    ]
    if not scored:
        return []
    first = comparison(scored[0]["verdict"], "held_out")
    assert first is not None, "every held-out score belongs to a comparison"
    return [
        (scored[0]["verdict"].baseline_version, first.baseline),
        *((row["version"], row["held_out"]) for row in scored),
    ]


IntervalSign = Literal["good", "bad", "unsure"]


def interval_sign(row: Comparison | Measure) -> IntervalSign:
    """Classify a confidence interval: above zero, below zero, or including it."""
    if row.lower is None or row.upper is None or row.lower <= 0 <= row.upper:
        return "unsure"
    return "good" if row.lower > 0 else "bad"
