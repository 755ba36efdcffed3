"""Sample events of the trainer, and a database with one declared model."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import select

from services.registry.handlers import HandlerContext, model_declared
from services.registry.rollout.known_users import user_author_id
from services.registry.store.database import Database, Session
from services.registry.store.live_reward_queries import record_users
from services.registry.store.outbox import enqueue
from services.registry.store.tables import AliasRow, OutboxRow
from shared.config.model_file import BasePaths, ModelFile
from shared.config.training import TrainingConfig
from shared.events import (
    Artefact,
    BatchCounts,
    BatchReady,
    CheckpointSaved,
    Comparison,
    Decision,
    FeedbackScored,
    FeedbackType,
    PolicyRef,
    Position,
    Probe,
    RunMetrics,
    TrainingProgressed,
    TrainingRolledBack,
    Verdict,
    VersionEvent,
    WaitingReported,
    WaitingStatus,
)
from shared.events.hyperparameters import Lane
from shared.identity import digest_of
from shared.messaging.topics import FEEDBACK_RECEIVED, TRAINING_CONTROLS

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
CONTEXT = HandlerContext(NOW)
MODEL = ModelFile(model="support", base=BasePaths(training="base", serving="base/model.gguf"))
DIGEST = digest_of(b"something")

R = TypeVar("R")

_numbers = count()


def verdict(decision: Decision, baseline: str) -> Verdict:
    scores = Comparison(
        name="held_out",
        examples=9,
        baseline=-1,
        candidate=-0.5,
        difference=0.5,
        lower=0.2,
        upper=0.8,
        margin=0,
    )
    return Verdict(
        decision=decision,
        baseline_version=baseline,
        confidence=0.95,
        reasons=("held_out: +0.5",),
        comparisons=(scores,),
    )


def _outcome(
    run: str, baseline: str, evaluation: int, decision: Decision, model: str
) -> dict[str, Any]:
    metrics = RunMetrics(
        training_loss=0.5,
        steps=4,
        epochs=2,
        examples_new=50,
        examples_replayed=0,
        tokens=900,
        train_seconds=3,
        evaluate_seconds=1,
    )
    return {
        "event_id": f"{run}-{evaluation}",
        "occurred_at": NOW,
        "model": model,
        "model_digest": DIGEST,
        "run_id": run,
        "batch_id": f"batch of {run}",
        "lane": "adaptive",
        "parent_version": baseline,
        "evaluation": evaluation,
        "adapter": Artefact(uri=f"adapters/{run}/manifest.json", digest=digest_of(run.encode())),
        "configuration": TrainingConfig(),
        "metrics": metrics,
        "verdict": verdict(decision, baseline),
    }


def checkpoint(
    run: str,
    baseline: str,
    evaluation: int = 1,
    model: str = "support",
    probes: Sequence[Probe] = (),
) -> CheckpointSaved:
    return CheckpointSaved(
        **_outcome(run, baseline, evaluation, "promote", model),
        base_digest=DIGEST,
        probes=tuple(probes),
    )


def rejection(run: str, baseline: str, evaluation: int = 1) -> TrainingRolledBack:
    outcome = _outcome(run, baseline, evaluation, "reject", "support")
    return TrainingRolledBack(
        **outcome, outcome="rejected", reason="worse", advice="look at the batch"
    )


def progress(
    run: str, step: int, loss: float | None = None, model: str = "support"
) -> TrainingProgressed:
    return TrainingProgressed(
        event_id=f"{run}-{step}",
        occurred_at=NOW,
        model=model,
        run_id=run,
        batch_id=f"batch of {run}",
        phase="training",
        step=step,
        total_steps=4,
        loss=loss,
    )


def waiting_report(
    status: WaitingStatus, shard: int = 0, seconds: int = 0, model: str = "support"
) -> WaitingReported:
    """Return a report of the dataset service, made `seconds` after the first ones."""
    return WaitingReported(
        event_id=f"waiting {model} {shard} {seconds}",
        occurred_at=NOW + timedelta(seconds=seconds),
        model=model,
        shard=shard,
        status=status,
    )


def announcement(number: int, lane: Lane = "adaptive") -> BatchReady:
    """Return the announcement of a batch, closed a minute after the one before it."""
    return BatchReady(
        event_id=f"batch {number}",
        occurred_at=NOW + timedelta(minutes=number),
        model="support",
        model_digest=DIGEST,
        batch_id=f"batch {number}",
        shard=0,
        number=number,
        lane=lane,
        manifest=Artefact(uri=f"batches/{number}/manifest.json", digest=DIGEST),
        counts=BatchCounts(training=50, preference=0, negative=0, held_out=5),
        offsets=(),
    )


def feedback(
    version: str | None,
    reward: float,
    user: str | None,
    kind: FeedbackType = "thumbs_up",
    name: str | None = None,
) -> FeedbackScored:
    """Return scored feedback on a version, with a new event id unless `name` is given."""
    number = next(_numbers)
    return FeedbackScored(
        event_id=name or f"e{number}",
        occurred_at=NOW,
        model="support",
        model_version=version,
        input="Where is my tent?",
        output="No idea.",
        feedback_type=kind,
        user_id=user,
        shard=0,
        reward=reward,
        parts=(),
        policy=PolicyRef(name="default", version=1),
        model_digest=DIGEST,
        received=Position(topic=FEEDBACK_RECEIVED, partition=0, offset=number),
    )


def introduce(
    registry_db: "DatabaseFixture", users: Sequence[str], at: datetime = NOW - timedelta(days=2)
) -> None:
    """Make the registry know users since a time."""
    authors = [user_author_id("support", user) for user in users]
    registry_db.run(lambda session: record_users(session, "support", authors, at))


class DatabaseFixture:
    """A database with one declared model."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.migrate()
        self.decide(lambda session: model_declared(session, MODEL, NOW))

    def run(self, work: Callable[[Session], R]) -> R:
        return self.database.run_sync(work)

    def decide(self, work: Callable[[Session], Sequence[VersionEvent]]) -> None:
        """Run `work`, with the events that it returns in the outbox, as the registry does."""
        self.run(lambda session: enqueue(session, work(session), NOW))

    def close(self) -> None:
        self.database.close()

    @property
    def enqueued(self) -> list[str]:
        """Types of all events that were added to the outbox, in order."""
        rows = select(OutboxRow).order_by(OutboxRow.id)
        return self.run(lambda session: [row.headers["ce_type"] for row in session.scalars(rows)])

    @property
    def controls(self) -> list[tuple[str, int]]:
        """Types and numbers of the decisions on training in the outbox, in order."""
        rows = select(OutboxRow).where(OutboxRow.topic == TRAINING_CONTROLS).order_by(OutboxRow.id)
        return self.run(
            lambda session: [
                (row.headers["ce_type"].split(".")[1], json.loads(row.value)["number"])
                for row in session.scalars(rows)
            ]
        )

    @property
    def aliases(self) -> AliasRow:
        row = self.run(lambda session: session.get(AliasRow, "support"))
        assert row is not None
        return row

    @property
    def champion(self) -> str:
        assert self.aliases.champion is not None
        return self.aliases.champion
