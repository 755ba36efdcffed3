"""What a ledger answers: what became of an event, of a request, and that a batch is full."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.events import Artefact
from shared.storage.dataset_entries import DatasetEntry, EntryDecision


@dataclass(frozen=True, slots=True)
class FeedbackDecision:
    """What became of an event: a new entry; or none, for a `duplicate` (the same feedback at
    another offset) and for a `replay` (the same offset again, after a crash). `superseded` is the
    entry of earlier feedback on the same answer that waited and waits no more, to be written after
    `entry`. `expired` are keys of entries that are needed no more.
    """

    status: Literal["new", "duplicate", "replay"]
    entry: DatasetEntry | None = None
    superseded: DatasetEntry | None = None
    expired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WithdrawalDecision:
    """What became of a request to withdraw a user's feedback, with the same words as in `Decided`.
    `waiting` of the user's examples waited before it, and wait no more. `entries` are to be
    written, in this order: the last is that of the request itself, so that one which is there says
    that the others are.
    """

    status: Literal["new", "duplicate", "replay"]
    waiting: int = 0
    entries: tuple[DatasetEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch that is full: its members in the order of their places (training, then negatives,
    then held out). `dropped` counts what was dropped since the batch before, by reason; `held_back`
    what is good and has to wait longer, by what holds it back.
    """

    number: int
    batch_id: str
    members: tuple[DatasetEntry, ...]
    dropped: dict[str, int]
    deferred: dict[str, int]
    previous: Artefact | None
    closed: int
    occurred_at: datetime

    def members_with(self, decision: EntryDecision) -> list[DatasetEntry]:
        return [entry for entry in self.members if entry.decision == decision]
