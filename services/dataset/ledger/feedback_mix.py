"""An eye on the mix of feedback: a sudden share of one kind is how a campaign looks from outside.

For each kind, the share in the newest `RECENT` events is compared with that in the `BASELINE`
before them by the test of two proportions (pooled z). It is an alarm, not a filter: limits on
influence act by themselves, and people decide about the rest.
"""

from collections import Counter, deque
from math import sqrt

RECENT = 100
BASELINE = 1000
MIN_BASELINE = 200
MIN_Z_SCORE = 5.0
"""Standard deviations: many, since it is asked with every event."""
MIN_SHARE_INCREASE = 0.15
"""Of all events; less is not worth waking anyone for, however sure."""


class FeedbackMixMonitor:
    """The newest events by kind. The cost of an event does not depend on how many came before."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque()
        self._baseline: deque[str] = deque()
        self._counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def observe(self, kind: str) -> None:
        recent, baseline = self._counts
        self._recent.append(kind)
        recent[kind] += 1
        if len(self._recent) > RECENT:
            older = self._recent.popleft()
            recent[older] -= 1
            self._baseline.append(older)
            baseline[older] += 1
        if len(self._baseline) > BASELINE:
            baseline[self._baseline.popleft()] -= 1

    def has_spiked(self, kind: str) -> bool:
        """Whether the share of `kind` has risen beyond chance."""
        before, now = len(self._baseline), len(self._recent)
        if before < MIN_BASELINE or now < RECENT:
            return False
        recent, baseline = self._counts
        share, usual = recent[kind] / now, baseline[kind] / before
        pooled = (recent[kind] + baseline[kind]) / (now + before)
        spread = sqrt(pooled * (1 - pooled) * (1 / now + 1 / before))
        return share - usual > MIN_SHARE_INCREASE and share - usual > MIN_Z_SCORE * spread
