"""What became of each scored event: the only durable state of the dataset service, in a compacted
topic.

One entry for each event, written once when the event is decided and once more when it enters a
batch, then without its content; and one record for each batch, written once, before it is announced
and its members are written again. Both are small, independent of each other, and the same whoever
writes them.

A worker that was paused longer than its session can wake up and write an entry as it was before its
batch closed over what it is since. It cannot do so to the batch's record, which never said anything
else: so the record is what recovery goes by.
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
    "near_duplicate",
    "contaminated",
    "superseded",
    "corrected",
    "late",
    "withdrawn",
]


class Membership(FrozenModel):
    """The place of an event in a batch: `place` of `size` members, counted from 0; `closed` is the
    offset at which the batch closed.
    """

    number: Count
    place: Count
    size: Annotated[int, Field(ge=1)]
    closed: Count
    manifest: Artefact


class DatasetEntry(FrozenModel):
    """What was decided about one event, why, and where the event stands in `feedback.scored`.

    `occurred_at` is the event's own time, `logged_at` that of its record. `influence` and
    `conversation` name whose it is, for the limits; `since` is when that user was first seen,
    `eligible_at` when a newcomer's example may enter a batch. `answer_id` names the answer that it
    is about, `parts` and `word` are what had been said of it by then (see `answers.py` of the
    dataset service). `text` and `prompt` are MinHash signatures (base64), kept while similar
    examples have to be found. `revoked` is the offset of the later event for which an example that
    waited was dropped after all, `traceparent` the span that scored one that waits. The entry of a
    `WithdrawalRequested` has the decision `withdrawal`; its `withdraws` stands for the user whose
    entries from before it say nothing of them any more.
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
    withdraws: Id | None = None
    traceparent: str | None = None
    batch: Membership | None = None

    @property
    def key(self) -> str:
        """The key in the compacted topic."""
        return entry_key(self.model, self.shard, self.feedback_id)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a batch."""
        return is_waiting(self.decision, self.batch)

    def with_traceparent(self, traceparent: str) -> "DatasetEntry":
        """The same, with the span that scored it."""
        return self.model_copy(update={"traceparent": traceparent})

    def with_membership(self, batch: Membership) -> "DatasetEntry":
        """The same event as a member of a batch, without its content, and without what only matters
        before.
        """
        gone = dict.fromkeys(("example", "traceparent", "conversation", "eligible_at"))
        return self.model_copy(update=gone | {"batch": batch, "parts": ()})

    def without_signatures(self) -> "DatasetEntry":
        """The same event, with which nothing is compared any more."""
        return self.model_copy(update={"text": None, "prompt": None})

    def revoked_by(self, reason: EntryReason, offset: int) -> "DatasetEntry":
        """The same event, dropped for the one at `offset` although it waited; without its content."""
        gone = dict.fromkeys(
            ("example", "text", "prompt", "conversation", "eligible_at", "traceparent")
        )
        return self.model_copy(
            update={"decision": "dropped", "reason": reason, "revoked": offset, **gone}
        )

    def erased(self) -> "DatasetEntry":
        """The same event, of which only remains that it was there: nothing of what was said, or who
        said it.
        """
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
    """Whether what was decided so waits for a batch, if it is in `batch`."""
    return batch is None and decision not in ("dropped", "withdrawal")


def entry_key(model: str, shard: int, feedback_id: str) -> str:
    """`model#shard|feedback_id`."""
    return f"{model}#{shard}|{feedback_id}"


class ClosedBatch(FrozenModel):
    """A batch that is settled: its number, how many members it has, the offset at which it closed,
    the time of the event there, and the manifest that names them. `partition` is that of its
    events.
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
        """That of the event at a place of this batch."""
        return Membership(
            number=self.number,
            place=place,
            size=self.size,
            closed=self.closed,
            manifest=self.manifest,
        )


def closed_batch_key(model: str, shard: int, number: int) -> str:
    """`model#shard/number`. No entry's key looks like it: a model's name has neither `#` nor `/`."""
    return f"{model}#{shard}/{number}"


@dataclass(frozen=True, slots=True)
class TableState:
    """All that the compacted topic says, or a part of it."""

    entries: tuple[DatasetEntry, ...]
    batches: tuple[ClosedBatch, ...] = ()

    @classmethod
    def from_records(cls, values: Iterable[tuple[bytes, bytes]]) -> "TableState":
        """From keys and their last values."""
        entries: list[DatasetEntry] = []
        batches: list[ClosedBatch] = []
        for key, value in values:
            if is_batch_key(key):
                batches.append(ClosedBatch.model_validate_json(value))
            else:
                entries.append(DatasetEntry.model_validate_json(value))
        return cls(tuple(entries), tuple(batches))


def is_batch_key(key: bytes) -> bool:
    """Whether a key is that of a batch's record, and not of an entry."""
    _, _, rest = key.partition(b"#")
    return rest.partition(b"/")[0].isdigit()
