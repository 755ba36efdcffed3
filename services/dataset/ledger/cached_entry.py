"""In-memory form of an entry: its encoding, plus the fields that are read often.

The encoding is the same bytes object that the table holds. Whole entries would take six times the
memory, since each field is an object. The bytes alone would take a sixth less, but recovery would
decode every entry several times, and a withdrawal once more.
"""

from dataclasses import dataclass
from datetime import datetime
from sys import intern

from shared.events import FeedbackType
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason, is_waiting


@dataclass(frozen=True, slots=True)
class CachedEntry:
    """An encoded entry. `offset` is that of its source record; `batch_number` and `place` are those
    of its batch, None if it is in no batch.
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
    corrects: tuple[str, ...] | None

    @classmethod
    def of(cls, entry: DatasetEntry, encoded: bytes | None = None) -> "CachedEntry":
        """Cache an entry. `encoded` is its encoding as read; without it the entry is encoded."""
        return cls(
            encoded=entry.encode() if encoded is None else encoded,
            feedback_id=entry.feedback_id,
            offset=entry.source.offset,
            logged_at=entry.logged_at,
            decision=entry.decision,
            reason=entry.reason,
            # One string object for all entries of a contributor.
            contributor=intern(entry.influence) if entry.influence else None,
            answer_id=entry.answer_id,
            user_verdict=entry.word,
            batch_number=entry.batch.number if entry.batch else None,
            place=entry.batch.place if entry.batch else None,
            revoked=entry.revoked,
            withdraws=entry.withdraws,
            corrects=entry.corrects,
        )

    @property
    def entry(self) -> DatasetEntry:
        """The whole entry, decoded on each access."""
        return DatasetEntry.model_validate_json(self.encoded)

    @property
    def is_waiting(self) -> bool:
        """True if the entry waits for a batch."""
        return is_waiting(self.decision, self.batch_number)
