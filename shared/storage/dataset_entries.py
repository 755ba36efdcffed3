"""Entries of the dataset service, one per scored event: its only durable state, in a compacted
topic.

An entry is written once when the event is decided, and once more, without its example, when the
event enters a batch. It keeps the texts that later examples are compared with. A batch has one
record, written once, before the batch is announced and its members are rewritten. Entries and batch
records are small, independent of each other, and the same whichever worker writes them.

A worker that was paused longer than its session can wake up and overwrite an entry with its state
from before the batch closed. It cannot do so to the batch's record, which is never changed:
recovery therefore relies on the batch records.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from shared.events import Artefact, Count, FeedbackType, FrozenModel, Id, Name, Position, RewardPart
from shared.storage.snapshots import Example

EntryDecision = Literal["training", "negative", "held_out", "dropped", "withdrawal"]
EntryReason = Literal[
    "correction",
    "approved",
    "low_reward",
    "held_out",
    "retracted",
    "low_quality",
    "empty",
    "format_redacted",
    "new_placeholder",
    "near_duplicate",
    "contaminated",
    "waiting_limit",
    "superseded",
    "corrected",
    "late",
    "withdrawn",
]


class Membership(FrozenModel):
    """The position of an event in a batch: `place` of `size` members, counted from 0.

    `closed` is the offset at which the batch closed.
    """

    number: Count
    place: Count
    size: Annotated[int, Field(ge=1)]
    closed: Count
    manifest: Artefact


class DatasetEntry(FrozenModel):
    """The decision about one event, its reason, and the position of the event in `feedback.scored`.

    `occurred_at` is the time of the event, `logged_at` that of its record. `influence` and
    `conversation` identify the contributor, for the limits; `since` is when the user was first
    seen, `eligible_at` when a new user's example may enter a batch. `answer_id` names the rated
    answer; `parts` and `word` are its reward parts and its user verdict up to this event. `text`
    and `prompt` are the answer and the prompt that new examples are compared with, as
    `services.dataset.ledger.similarity.stored_text` stores them; earlier versions stored MinHash
    signatures. `revoked` is the offset of the later event for which a pending example was dropped;
    `corrects` are the pending examples that were dropped for this correction; `traceparent` is the
    span that scored a pending one. The entry of a `WithdrawalRequested` has the decision
    `withdrawal`; `withdraws` is the pseudonym of the user whose earlier entries are erased.
    """

    model: Name
    shard: Count
    feedback_id: Id
    decision: EntryDecision
    reason: EntryReason
    source: Position
    occurred_at: AwareDatetime
    logged_at: AwareDatetime
    influence: str | None = None
    conversation: str | None = None
    since: AwareDatetime | None = None
    eligible_at: AwareDatetime | None = None
    answer_id: Id | None = None
    parts: tuple[RewardPart, ...] = ()
    word: FeedbackType | None = None
    example: Example | None = None
    text: str | None = None
    prompt: str | None = None
    revoked: Count | None = None
    corrects: tuple[Id, ...] | None = None
    withdraws: Id | None = None
    traceparent: str | None = None
    batch: Membership | None = None

    @property
    def key(self) -> str:
        """The key in the compacted topic."""
        return entry_key(self.model, self.shard, self.feedback_id)

    @property
    def is_waiting(self) -> bool:
        """True while the event waits for a batch."""
        return is_waiting(self.decision, self.batch)

    def with_traceparent(self, traceparent: str) -> "DatasetEntry":
        """Return a copy with the span that scored the event."""
        return self.model_copy(update={"traceparent": traceparent})

    def with_corrected(self, feedback_ids: Iterable[Id]) -> "DatasetEntry":
        """Return a copy with the pending examples that were dropped for this correction."""
        return self.model_copy(update={"corrects": tuple(feedback_ids)})

    def with_membership(self, batch: Membership) -> "DatasetEntry":
        """Return a copy as a member of a batch, without its example and without what matters only
        before.
        """
        gone = dict.fromkeys(("example", "traceparent", "conversation", "eligible_at"))
        return self.model_copy(update=gone | {"batch": batch, "parts": ()})

    def without_texts(self) -> "DatasetEntry":
        """Return a copy without the texts that no other event is compared with any more."""
        return self.model_copy(update={"text": None, "prompt": None})

    def revoked_by(self, reason: EntryReason, offset: int) -> "DatasetEntry":
        """Return a copy dropped for the event at `offset` while it was pending, without its
        content.
        """
        gone = dict.fromkeys(
            ("example", "text", "prompt", "conversation", "eligible_at", "traceparent")
        )
        return self.model_copy(
            update={"decision": "dropped", "reason": reason, "revoked": offset, **gone}
        )

    def erased(self) -> "DatasetEntry":
        """Return a copy without content or reference to the user: only that the event existed."""
        gone = dict.fromkeys(
            (
                "influence",
                "conversation",
                "since",
                "eligible_at",
                "word",
                "example",
                "text",
                "prompt",
                "traceparent",
            )
        )
        return self.model_copy(update=gone | {"parts": ()})

    def encode(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


def is_waiting(decision: EntryDecision, batch: object | None) -> bool:
    """Return whether an event with this decision waits for a batch; `batch` is its membership, if
    any.
    """
    return batch is None and decision not in ("dropped", "withdrawal")


def entry_key(model: str, shard: int, feedback_id: str) -> str:
    """Return `model#shard|feedback_id`."""
    return f"{model}#{shard}|{feedback_id}"


class ClosedBatch(FrozenModel):
    """Record of a closed batch: number, size, the offset at which it closed, the time of the event
    there, and its manifest.

    `partition` is that of its events.
    """

    model: Name
    shard: Count
    partition: Count
    number: Count
    size: Annotated[int, Field(ge=1)]
    closed: Count
    occurred_at: AwareDatetime
    manifest: Artefact

    @property
    def key(self) -> str:
        """The key in the compacted topic."""
        return closed_batch_key(self.model, self.shard, self.number)

    def encode(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    def membership(self, place: int) -> Membership:
        """Return the membership of the event at a place of this batch."""
        return Membership(
            number=self.number,
            place=place,
            size=self.size,
            closed=self.closed,
            manifest=self.manifest,
        )


def closed_batch_key(model: str, shard: int, number: int) -> str:
    """Return `model#shard/number`.

    It never collides with an entry's key: a model's name contains neither `#` nor `/`.
    """
    return f"{model}#{shard}/{number}"


@dataclass(frozen=True, slots=True)
class TableState:
    """The content of the compacted topic, or of a part of it."""

    entries: tuple[DatasetEntry, ...]
    batches: tuple[ClosedBatch, ...] = ()

    @classmethod
    def from_records(cls, values: Iterable[tuple[bytes, bytes]]) -> "TableState":
        """Decode the last value of each key."""
        entries: list[DatasetEntry] = []
        batches: list[ClosedBatch] = []
        for key, value in values:
            if is_batch_key(key):
                batches.append(ClosedBatch.model_validate_json(value))
            else:
                entries.append(DatasetEntry.model_validate_json(value))
        return cls(tuple(entries), tuple(batches))


def is_batch_key(key: bytes) -> bool:
    """Return whether a key belongs to a batch record, not to an entry."""
    _, _, rest = key.partition(b"#")
    return rest.partition(b"/")[0].isdigit()
