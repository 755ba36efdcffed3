"""Test data: scored events, withdrawal requests, and a simulated shard that handles them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import ShardKey, ShardState, read_state
from services.dataset.ledger.results import BatchPlan, ShardUpdate
from shared.config.model_file import BasePaths, ModelFile
from shared.events import Artefact, FeedbackScored, PolicyRef, Position, WithdrawalRequested
from shared.identity import digest_of, identity
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry, TableState

START = datetime(2026, 1, 1, tzinfo=UTC)


def model_file(model: str = "support", /, **curation: Any) -> ModelFile:
    return ModelFile.model_validate(
        {
            "model": model,
            "base": BasePaths(training="base", serving="base.gguf"),
            "curation": curation,
        }
    )


def words(seed: str, count: int = 12) -> str:
    """Text that shares no shingle with the text of another seed."""
    return " ".join(identity(seed, at)[:8] for at in range(count))


def scored(
    event_id: str, feedback_type: str = "thumbs_up", reward: float = 1.0, /, **fields: Any
) -> FeedbackScored:
    corrected = (
        {"corrected_output": words(f"right {event_id}")} if feedback_type == "correction" else {}
    )
    defaults: dict[str, Any] = {
        "event_id": event_id,
        "occurred_at": START,
        "model": "support",
        "input": words(f"prompt {event_id}"),
        "output": words(f"answer {event_id}"),
        "feedback_type": feedback_type,
        "shard": 0,
        "reward": reward,
        "parts": (),
        "policy": PolicyRef(name="default", version=1),
        "model_digest": digest_of(b""),
        "received": Position(topic="feedback.received", partition=0, offset=0),
    }
    return FeedbackScored.model_validate(defaults | corrected | fields)


def withdrawal(event_id: str, user: str, **fields: Any) -> WithdrawalRequested:
    defaults: dict[str, Any] = {
        "event_id": event_id,
        "occurred_at": START,
        "model": "support",
        "shard": 0,
        "user_id": user,
        "forgotten": f"forgotten {event_id}",
        "received": Position(topic="feedback.received", partition=0, offset=0),
    }
    return WithdrawalRequested.model_validate(defaults | fields)


def state_of(table: Mapping[str, bytes]) -> dict[ShardKey, ShardState]:
    """State that a worker with all partitions reads from a table."""
    return read_state(
        ((key.encode(), value) for key, value in table.items()), lambda partition: True
    )[0]


class SimulatedShard:
    """Everything that survives a crash: the table's entries and the announced batches.

    Drives a ledger as the handlers do. `cached` holds the table's values in memory.
    """

    def __init__(self, file: ModelFile, golden: GoldenSet | None = None) -> None:
        self.file = file
        self.golden = golden or GoldenSet()
        self.entries: dict[str, DatasetEntry] = {}
        self.cached: dict[str, bytes] = {}
        self.records: dict[str, ClosedBatch] = {}
        self.batches: dict[int, tuple[str, ...]] = {}
        self.plans: list[BatchPlan] = []
        self.duplicates = 0
        self.ledger = Ledger(file, 0, self.golden)

    def load(self, table: Mapping[str, bytes]) -> None:
        """Start from the values of a stored table."""
        state = TableState.from_records((key.encode(), value) for key, value in table.items())
        self.entries = {entry.key: entry for entry in state.entries}
        self.records = {batch.key: batch for batch in state.batches}
        self.restart()

    @property
    def pending(self) -> int:
        return self.ledger.current_state().status.pending

    @property
    def deferred(self) -> Mapping[str, int]:
        return self.ledger.current_state().status.deferred

    def restart(self) -> None:
        """Rebuild the ledger from the stored entries."""
        self.ledger = Ledger.rebuild(
            self.file,
            0,
            self.golden,
            map(CachedEntry.of, self.entries.values()),
            self.records.values(),
        )
        self.cached = {key: entry.encode() for key, entry in self.entries.items()}
        self.cached |= dict(self.ledger.current_state().shrunk)

    def withdraw(
        self, request: WithdrawalRequested, offset: int, logged_at: datetime | None = None
    ) -> ShardUpdate:
        logged_at = logged_at or START + timedelta(seconds=offset)
        return self.apply(self.ledger.withdraw(request, _position(offset), logged_at))

    def decide(
        self, event: FeedbackScored, offset: int, logged_at: datetime | None = None
    ) -> ShardUpdate:
        logged_at = logged_at or START + timedelta(seconds=offset)
        return self.apply(self.ledger.decide(event, _position(offset), logged_at))

    def apply(self, update: ShardUpdate) -> ShardUpdate:
        """Store the effects of an update, and close the batches that it fills."""
        for key in update.expired:
            del self.entries[key], self.cached[key]
        self._store(update)
        self.duplicates += update.event_status == "duplicate"
        plan = update.batch
        while plan is not None:
            closed = self._close_batch(plan)
            self._store(closed)
            plan = closed.batch
        return update

    def _close_batch(self, plan: BatchPlan) -> ShardUpdate:
        members = tuple(entry.feedback_id for entry in plan.members)
        assert self.batches.setdefault(plan.number, members) == members, (
            "a batch was formed again with other members"
        )
        self.plans.append(plan)
        manifest = Artefact(uri=f"{plan.number}.json", digest=digest_of(str(plan.number).encode()))
        record = ClosedBatch(
            model=self.file.model,
            shard=0,
            partition=0,
            number=plan.number,
            size=len(members),
            closed=plan.closed,
            occurred_at=plan.occurred_at,
            manifest=manifest,
        )
        self.records[record.key] = record
        return self.ledger.close_batch(plan, manifest)

    def _store(self, update: ShardUpdate) -> None:
        for write in update.writes:
            self.entries[write.key] = DatasetEntry.model_validate_json(write.value)
            self.cached[write.key] = write.value
        self.cached |= dict(update.shrunk)

    @property
    def state(self) -> ShardState:
        return ShardState(
            [CachedEntry.of(entry) for entry in self.entries.values()], list(self.records.values())
        )

    def training_members(self, number: int) -> list[str]:
        inside = [
            entry
            for entry in self.entries.values()
            if entry.batch and entry.batch.number == number and entry.decision == "training"
        ]
        return [
            entry.feedback_id
            for entry in sorted(inside, key=lambda entry: entry.batch.place if entry.batch else 0)
        ]


def _position(offset: int) -> Position:
    return Position(topic=FEEDBACK_SCORED, partition=0, offset=offset)
