"""Frozen results of a ledger: the effects of one event, and the batch to close, for the handlers to
apply.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from shared.events import Artefact, FeedbackType, WithdrawalRequested
from shared.storage.dataset_entries import DatasetEntry, EntryDecision, EntryReason

EventStatus = Literal["new", "duplicate", "replay"]
"""`duplicate`: the same event at another offset. `replay`: the same offset again, after a crash."""


@dataclass(frozen=True, slots=True)
class TableWrite:
    """An encoded entry to write to a partition of the table. The value is the same bytes object
    that the ledger caches.
    """

    partition: int
    key: str
    value: bytes


class ShardStatus(NamedTuple):
    """Gauges of a shard: training examples that wait, how many of them each limit defers, the kinds
    of feedback whose share has spiked, and the main reason while most of the feedback is dropped.
    """

    pending: int
    deferred: Mapping[str, int]
    spiked_kinds: frozenset[FeedbackType]
    main_loss: EntryReason | None = None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch to close: its members in the order of their places (training, then negatives, then
    held out). `dropped` counts the events dropped since the batch before, by reason; `deferred` the
    good examples left for a later batch, by limit.
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
        """Members with a decision, in order."""
        return [entry for entry in self.members if entry.decision == decision]


@dataclass(frozen=True, slots=True)
class WithdrawalPlan:
    """A withdrawal to announce before its entries are written: the number of the user's entries
    that waited, and the manifest from which to search the snapshots backwards.
    """

    request: WithdrawalRequested
    waiting: int
    newest_manifest: Artefact | None


class ShardUpdate(NamedTuple):
    """Effects of one event, or of one closed batch, on a shard, for the handler to apply.

    `withdrawal` is announced first, so that a repeated request finds what is left to do. `expired`
    are keys to delete. `writes` are entries to store in this order, so that recovery can complete
    the update after a crash between two of them. `shrunk` are smaller values by key, for the
    table's memory only. `counted` is the decision and reason to count. `batch` is the next batch to
    close, None if it is too early for one. `status` holds the gauges before that batch closes.
    `entry` is the event's own entry, None unless the event is new.
    """

    status: ShardStatus
    event_status: EventStatus | None = None
    withdrawal: WithdrawalPlan | None = None
    expired: tuple[str, ...] = ()
    writes: tuple[TableWrite, ...] = ()
    shrunk: tuple[tuple[str, bytes], ...] = ()
    counted: tuple[str, str] | None = None
    batch: BatchPlan | None = None
    entry: DatasetEntry | None = None
