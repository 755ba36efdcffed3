"""The reward that named parts add up to: one formula for the service that scores and for the one that takes several events together."""

from collections.abc import Iterable

from shared.events import RewardPart


def mean_reward(parts: Iterable[RewardPart]) -> float:
    """The mean of the parts' values, weighted by their weights, in [-1, 1]; 0 without any weight."""
    parts = tuple(parts)
    total = sum(part.weight for part in parts)
    mean = sum(part.value * part.weight for part in parts) / total if total else 0.0
    return max(-1.0, min(1.0, mean))
