"""What became of every event that was sent, reckoned from outside: from the topics alone.

sent = batched + held out + dropped + dead-lettered + pending.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shared.bus import Record
from shared.codec import decode
from shared.dead_letters import Notice
from shared.entries import Entry
from shared.events import FeedbackScored, Position
from shared.topics import DATASET_ENTRIES, FEEDBACK_RECEIVED, FEEDBACK_SCORED, dead_letter_of

TOPICS_NEEDED = (
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    dead_letter_of(FEEDBACK_RECEIVED),
    dead_letter_of(FEEDBACK_SCORED),
    DATASET_ENTRIES,
)


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
        return self.sent == self.batched + self.held_out + sum(self.dropped.values()) + self.dead_lettered + self.pending


def account(records: Iterable[Record]) -> Account:
    """Reckon from every record of `TOPICS_NEEDED`. Feedback that a crash had scored twice counts once; feedback that was sent twice
    under one id is a dropped duplicate."""
    by_topic: dict[str, list[Record]] = {topic: [] for topic in TOPICS_NEEDED}
    for record in records:
        by_topic[record.topic].append(record)
    latest = {(record.partition, record.key): record.value for record in by_topic[DATASET_ENTRIES]}
    entries = [Entry.model_validate_json(value) for value in latest.values() if value]
    scored = {decode(record.value, record.headers, FeedbackScored).event.received for record in by_topic[FEEDBACK_SCORED]}
    dead = _origins(by_topic[dead_letter_of(FEEDBACK_RECEIVED)])
    dead_scored = _origins(by_topic[dead_letter_of(FEEDBACK_SCORED)])
    dropped = Counter(entry.reason for entry in entries if entry.decision == "dropped")
    duplicates = len(scored) - len(dead_scored) - len(entries)
    return Account(
        sent=len(by_topic[FEEDBACK_RECEIVED]),
        scored=len(scored),
        batched=sum(entry.batch is not None and entry.decision != "held_out" for entry in entries),
        held_out=sum(entry.decision == "held_out" for entry in entries),
        dropped=dict(dropped) | ({"duplicate": duplicates} if duplicates else {}),
        dead_lettered=len(dead) + len(dead_scored),
        pending=sum(entry.waits and entry.decision != "held_out" for entry in entries),
    )


def _origins(letters: Iterable[Record]) -> set[Position]:
    """Where dead letters stood before; one that a crash had written twice counts once."""
    return {notice.source for letter in letters if (notice := Notice.read(letter.headers))}
