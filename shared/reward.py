"""What the parts of a reward come to: one definition, for the service that scores and for those that merge what several events say."""

from collections.abc import Iterable

from shared.events import RewardPart


def mean_reward(parts: Iterable[RewardPart]) -> float:
    """The mean of the parts' values, weighted by their weights, in [-1, 1]; 0 without any part or weight."""
    weighed = [(part.value * part.weight, part.weight) for part in parts]
    total = sum(weight for _, weight in weighed)
    mean = sum(value for value, _ in weighed) / total if total else 0.0
    return max(-1.0, min(1.0, mean))
