"""Aggregate of a reward's parts, shared by the service that scores and those that merge several
events.
"""

from collections.abc import Iterable

from shared.events import RewardPart


def mean_reward(parts: Iterable[RewardPart]) -> float:
    """Return the weighted mean of the parts' values, in [-1, 1]; 0 without parts or weight."""
    weighed = [(part.value, part.weight) for part in parts]
    heaviest = max((weight for _, weight in weighed), default=0.0)
    if not heaviest:
        return 0.0
    # Relative to the heaviest, since the smallest weights are lost in a product.
    shares = [(value, weight / heaviest) for value, weight in weighed]
    return max(
        -1.0,
        min(1.0, sum(value * share for value, share in shares) / sum(share for _, share in shares)),
    )
