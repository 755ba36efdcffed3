"""The demo's account of every event that was sent: sent = batched + held out + dropped +
dead-lettered + pending.
"""

from collections import Counter
from dataclasses import dataclass

from ratchet.reconciliation import Reconciliation


@dataclass(frozen=True)
class EventCounts:
    """Counts of events, each in exactly one place."""

    sent: int
    scored: int
    batched: int
    held_out: int
    dropped: dict[str, int]
    dead_lettered: int
    pending: int

    @property
    def balanced(self) -> bool:
        return (
            self.sent
            == self.batched
            + self.held_out
            + sum(self.dropped.values())
            + self.dead_lettered
            + self.pending
        )


def count_events(reconciliation: Reconciliation) -> EventCounts:
    """Count the fates. Feedback that a crash had scored twice counts once; feedback that was sent
    twice under one id is a dropped duplicate; what is lost is missing from the sum.
    """
    fates = list(reconciliation.outcomes.values())
    places = Counter(fate.state for fate in fates if fate.decision != "held_out")
    return EventCounts(
        sent=reconciliation.accepted,
        scored=reconciliation.scored,
        batched=places["member"],
        held_out=sum(fate.decision == "held_out" for fate in fates),
        dropped=dict(Counter(fate.reason for fate in fates if fate.state == "dropped")),
        dead_lettered=places["dead_letter"],
        pending=places["waiting"],
    )
