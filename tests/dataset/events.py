"""Scored events and a log of them, for the tests of this folder."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from services.dataset.ledger.cached_entry import CachedEntry
from services.dataset.ledger.golden_set import GoldenSet
from services.dataset.ledger.ledger import Ledger
from services.dataset.ledger.recovery import ShardKey, ShardState, read_state
from services.dataset.ledger.results import BatchPlan, FeedbackDecision, WithdrawalDecision
from shared.config.model_file import BasePaths, ModelFile
from shared.events import Artefact, FeedbackScored, PolicyRef, Position, WithdrawalRequested
from shared.identity import digest_of, identity
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import ClosedBatch, DatasetEntry

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
    """Text that shares no run of words with another seed's."""
    return " ".join(identity(seed, at)[:8] for at in range(count))


def scored(
    event_id: str, feedback_type: str = "thumbs_up", reward: float = 1.0, /, **fields: Any
) -> FeedbackScored:
    corrected = (
        {"corrected_output": words(f"right {event_id}")} if feedback_type == "correction" else {}
    )
    said: dict[str, Any] = {
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
    return FeedbackScored.model_validate(said | corrected | fields)


def withdrawal(event_id: str, user: str, **fields: Any) -> WithdrawalRequested:
    said: dict[str, Any] = {
        "event_id": event_id,
        "occurred_at": START,
        "model": "support",
        "shard": 0,
        "user_id": user,
        "forgotten": f"forgotten {event_id}",
        "received": Position(topic="feedback.received", partition=0, offset=0),
    }
    return WithdrawalRequested.model_validate(said | fields)


def state_of(table: Mapping[str, bytes]) -> dict[ShardKey, ShardState]:
    """What a worker that owns all partitions reads in a table."""
    return read_state(
        ((key.encode(), value) for key, value in table.items()), lambda partition: True
    )[0]


class SimulatedShard:
    """What lasts when a process dies: the table's entries and the batches that were announced.
    Drives a ledger as the shell does; what the table holds in memory is `held`.
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

    def restart(self) -> None:
        self.ledger = Ledger.rebuild(
            self.file,
            0,
            self.golden,
            map(CachedEntry.of, self.entries.values()),
            self.records.values(),
        )
        self.cached = {key: entry.encode() for key, entry in self.entries.items()} | dict(
            self.ledger.lighter()
        )

    def withdraw(
        self, request: WithdrawalRequested, offset: int, logged_at: datetime | None = None
    ) -> WithdrawalDecision:
        withdrawn = self.ledger.withdraw(
            request, _position(offset), logged_at or START + timedelta(seconds=offset)
        )
        self._write(*withdrawn.entries)
        self.duplicates += withdrawn.status == "duplicate"
        self.close_batches()
        return withdrawn

    def decide(
        self, event: FeedbackScored, offset: int, logged_at: datetime | None = None
    ) -> FeedbackDecision:
        decided = self.ledger.decide(
            event, _position(offset), logged_at or START + timedelta(seconds=offset)
        )
        for key in decided.expired:
            del self.entries[key], self.cached[key]
        self._write(*(entry for entry in (decided.entry, decided.superseded) if entry is not None))
        self.duplicates += decided.status == "duplicate"
        self.close_batches()
        return decided

    def close_batches(self) -> None:
        while closing := self.ledger.plan_batch():
            members = tuple(entry.feedback_id for entry in closing.members)
            assert self.batches.setdefault(closing.number, members) == members, (
                "the same batch came out differently"
            )
            self.plans.append(closing)
            manifest = Artefact(
                uri=f"{closing.number}.json", digest=digest_of(str(closing.number).encode())
            )
            record = ClosedBatch(
                model=self.file.model,
                shard=0,
                partition=0,
                number=closing.number,
                size=len(members),
                closed=closing.closed,
                occurred_at=closing.occurred_at,
                manifest=manifest,
            )
            self.records[record.key] = record
            self._write(*self.ledger.close_batch(closing, manifest))
        self.cached |= self.ledger.lighter()

    def _write(self, *entries: DatasetEntry) -> None:
        for entry in entries:
            self.entries[entry.key] = entry
            self.cached[entry.key] = self.ledger.encoded_entry(entry.feedback_id)

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
