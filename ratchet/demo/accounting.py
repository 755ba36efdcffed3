"""The demo's account of every event that was sent: sent = batched + held out + dropped +
dead-lettered + pending.
"""

from collections import Counter
from dataclasses import dataclass

from ratchet.reconciliation import Reconciliation


@dataclass(frozen=True)
class Account:
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


def account(found: Reconciliation) -> Account:
    """Count the fates. Feedback that a crash had scored twice counts once; feedback that was sent
    twice under one id is a dropped duplicate; what is lost is missing from the sum.
    """
    fates = list(found.fates.values())
    places = Counter(fate.place for fate in fates if fate.decision != "held_out")
    return Account(
        sent=found.accepted,
        scored=found.scored,
        batched=places["member"],
        held_out=sum(fate.decision == "held_out" for fate in fates),
        dropped=dict(Counter(fate.reason for fate in fates if fate.place == "dropped")),
        dead_lettered=places["dead_letter"],
        pending=places["waiting"],
    )
