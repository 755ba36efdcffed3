"""Monitors of what comes and what is kept, for operators; no decision depends on them.

A sudden rise of one type of feedback is a sign of a campaign.

For each kind, the share in the newest `RECENT` events is compared with the share in the `BASELINE`
events before them by the two-proportion z-test (pooled). The result raises an alarm and filters
nothing: the limits on each contributor act on their own, and operators decide about the rest.
"""

from collections import Counter, deque
from math import sqrt

from shared.events import FeedbackType
from shared.storage.dataset_entries import EntryDecision, EntryReason

MONITORED_KINDS: tuple[FeedbackType, ...] = ("thumbs_up", "thumbs_down", "correction")
RECENT = 100
BASELINE = 1000
MIN_BASELINE = 200
MIN_Z_SCORE = 5.0
"""In standard deviations. High, since the test is repeated with every event."""
MIN_SHARE_INCREASE = 0.15
"""Share of all events. A smaller increase needs no operator, however significant it is."""
MIN_DECISIONS = 50
MAX_DROPPED_SHARE = 0.5
_LOSSES: frozenset[EntryReason] = frozenset(
    (
        "low_quality",
        "empty",
        "near_duplicate",
        "contaminated",
        "format_redacted",
        "new_placeholder",
        "waiting_limit",
    )
)
"""Reasons that drop feedback although no other feedback replaces it."""


class FeedbackMixMonitor:
    """Counts of the newest events by kind. The cost of an event is constant."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque()
        self._baseline: deque[str] = deque()
        self._counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def observe(self, kind: str) -> None:
        """Count one more event."""
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
        """True if the share of `kind` has risen significantly."""
        baseline_size, recent_size = len(self._baseline), len(self._recent)
        if baseline_size < MIN_BASELINE or recent_size < RECENT:
            return False
        recent, baseline = self._counts
        increase = recent[kind] / recent_size - baseline[kind] / baseline_size
        pooled = (recent[kind] + baseline[kind]) / (recent_size + baseline_size)
        deviation = sqrt(pooled * (1 - pooled) * (1 / recent_size + 1 / baseline_size))
        return increase > MIN_SHARE_INCREASE and increase > MIN_Z_SCORE * deviation

    @property
    def spiked_kinds(self) -> frozenset[FeedbackType]:
        """Monitored kinds whose share has risen significantly."""
        if len(self._baseline) < MIN_BASELINE:
            return frozenset()
        return frozenset(kind for kind in MONITORED_KINDS if self.has_spiked(kind))


class DropMonitor:
    """Decisions about the newest events of a shard. The cost of an event is constant."""

    def __init__(self) -> None:
        self._recent: deque[EntryReason | None] = deque()
        self._losses: Counter[EntryReason] = Counter()

    def observe(self, decision: EntryDecision, reason: EntryReason) -> None:
        """Count one more event."""
        if decision == "withdrawal":
            return
        loss = reason if decision == "dropped" and reason in _LOSSES else None
        self._recent.append(loss)
        if loss is not None:
            self._losses[loss] += 1
        if len(self._recent) > RECENT and (oldest := self._recent.popleft()) is not None:
            self._losses[oldest] -= 1

    @property
    def main_loss(self) -> EntryReason | None:
        """The most frequent reason to drop while most of the newest events are dropped; else None.
        Events that other feedback on the same answer replaced do not count as dropped.
        """
        size = len(self._recent)
        if size < MIN_DECISIONS or self._losses.total() <= MAX_DROPPED_SHARE * size:
            return None
        return max(self._losses, key=lambda reason: (self._losses[reason], reason))
