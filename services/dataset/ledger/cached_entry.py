"""An entry as it is held in memory: encoded, the very bytes that the table holds, and beside them
what is asked of entries in passing.

Whole entries would take six times as much, since each of their fields is an object. The bytes alone
would take a sixth less, but then a recovery would decode all of them several times over, and a
withdrawal once more.
"""

from dataclasses import dataclass
from datetime import datetime
from sys import intern

from shared.events import FeedbackType
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason, is_waiting


@dataclass(frozen=True, slots=True)
class CachedEntry:
    """An entry. `offset` is that of its source; `number` and `place` are those of its batch, None
    where it is in none.
    """

    encoded: bytes
    feedback_id: str
    offset: int
    logged_at: datetime
    decision: EntryDecision
    reason: EntryReason
    contributor: str | None
    answer_id: str | None
    user_verdict: FeedbackType | None
    batch_number: int | None
    place: int | None
    revoked: int | None
    withdraws: str | None

    @classmethod
    def of(cls, entry: DatasetEntry, encoded: bytes | None = None) -> "CachedEntry":
        """`encoded` is the entry as it was read, None for one that is new."""
        return cls(
            encoded=entry.encode() if encoded is None else encoded,
            feedback_id=entry.feedback_id,
            offset=entry.source.offset,
            logged_at=entry.logged_at,
            decision=entry.decision,
            reason=entry.reason,
            # One string for all that a user said.
            contributor=intern(entry.influence) if entry.influence else None,
            answer_id=entry.answer_id,
            user_verdict=entry.word,
            batch_number=entry.batch.number if entry.batch else None,
            place=entry.batch.place if entry.batch else None,
            revoked=entry.revoked,
            withdraws=entry.withdraws,
        )

    @property
    def entry(self) -> DatasetEntry:
        """The whole of it, decoded anew each time."""
        return DatasetEntry.model_validate_json(self.encoded)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a batch."""
        return is_waiting(self.decision, self.batch_number)
