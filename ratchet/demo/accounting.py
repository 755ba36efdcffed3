"""Counts of every event that the demo sent: sent = batched + held out + dropped + dead-lettered +
pending.
"""

from collections import Counter
from dataclasses import dataclass

from ratchet.reconciliation import Reconciliation


@dataclass(frozen=True)
class EventCounts:
    """Numbers of events by outcome; each event has exactly one outcome."""

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
    """Count the outcomes of all events.

    Feedback that a crash had scored twice counts once. Feedback that was sent twice under one id is
    a dropped duplicate. A lost event is missing from the sum.
    """
    outcomes = list(reconciliation.outcomes.values())
    states = Counter(outcome.state for outcome in outcomes if outcome.decision != "held_out")
    return EventCounts(
        sent=reconciliation.accepted,
        scored=reconciliation.scored,
        batched=states["member"],
        held_out=sum(outcome.decision == "held_out" for outcome in outcomes),
        dropped=dict(Counter(outcome.reason for outcome in outcomes if outcome.state == "dropped")),
        dead_lettered=states["dead_letter"],
        pending=states["waiting"],
    )
