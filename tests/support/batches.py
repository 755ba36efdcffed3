"""Test data: batch plans, and chains of batches in an object store."""

from datetime import timedelta
from typing import Any

from services.dataset.ledger.results import BatchPlan
from services.dataset.snapshot.content import snapshot_content
from services.dataset.snapshot.writer import write_snapshot
from shared.events import Artefact, Message, Position
from shared.identity import batch_identity
from shared.messaging.topics import FEEDBACK_SCORED
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.object_store import ObjectStore
from shared.storage.snapshots import Example
from tests.support.scored_feedback import START, model_file, words

FILE = model_file()
_REASONS = {"training": "approved", "negative": "low_reward", "held_out": "held_out"}
_TYPES = {"training": "thumbs_up", "negative": "thumbs_down", "held_out": "accepted"}


def member(
    name: str, offset: int, decision: str = "training", reason: str | None = None, **fields: Any
) -> DatasetEntry:
    """A member of a batch, at `offset` of partition 0, with `fields` in its example."""
    correction = reason == "correction"
    example_fields: dict[str, Any] = {
        "feedback_id": name,
        "messages": (Message(role="user", content=words(f"prompt {name}")),),
        "answer": words(f"answer {name}"),
        "rejected": words(f"rejected {name}") if correction else None,
        "feedback_type": "correction" if correction else _TYPES[decision],
        "reward": -1.0 if decision == "negative" else 1.0,
        "quality": 0.0 if decision == "negative" else 1.0,
    }
    return DatasetEntry.model_validate(
        {
            "model": "support",
            "shard": 0,
            "feedback_id": name,
            "decision": decision,
            "reason": reason or _REASONS[decision],
            "source": Position(topic=FEEDBACK_SCORED, partition=0, offset=offset),
            "occurred_at": START + timedelta(seconds=offset),
            "logged_at": START,
            "example": Example.model_validate(example_fields | fields),
        }
    )


def batch_plan(
    *members: DatasetEntry,
    number: int = 0,
    dropped: dict[str, int] | None = None,
    held_back: dict[str, int] | None = None,
    previous: Artefact | None = None,
) -> BatchPlan:
    return BatchPlan(
        number=number,
        batch_id=batch_identity("support", 0, number),
        members=members,
        dropped=dropped or {},
        deferred=held_back or {},
        previous=previous,
        closed=max(entry.source.offset for entry in members),
        occurred_at=max(entry.occurred_at for entry in members),
    )


def write_chain(store: ObjectStore, count: int) -> list[Artefact]:
    """Write `count` batches, each with two approved answers, a correction, a negative and a
    held-out example. Return their manifests.
    """
    manifests: list[Artefact] = []
    for number in range(count):
        first = number * 5
        plan = batch_plan(
            member(f"/shop|c{number}", first, reason="correction", reward=-0.5, user_id="ann"),
            member(f"/shop|t{number}", first + 1, user_id="ann", model_version="v1"),
            member(f"u{number}", first + 2, user_id="bob"),
            member(f"n{number}", first + 3, "negative"),
            member(f"h{number}", first + 4, "held_out"),
            number=number,
            dropped={"near_duplicate": 2, "retracted": 1},
            previous=manifests[-1] if manifests else None,
        )
        manifests.append(write_snapshot(store, snapshot_content(plan, FILE, 0)))
    return manifests
