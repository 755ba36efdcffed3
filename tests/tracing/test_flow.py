"""Parents and links of the spans of all services' handlers, on in-memory implementations."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.trace import StatusCode
from sqlalchemy import select

from services.dataset.handlers import Dataset
from services.feedback.app import FeedbackHandler
from services.feedback.scoring import Policies
from services.registry.store.tables import OutboxRow
from shared.clock import ManualClock
from shared.config.model_file import ModelFile
from shared.config.models import Models
from shared.config.redaction_policy import RedactionPolicy
from shared.events import BatchReady, Event
from shared.identity import identity
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.dead_letters import DeadLetterInfo
from shared.messaging.topics import (
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
    dead_letter_topic,
)
from shared.observability.trace_context import (
    traceparent_for_batch,
    traceparent_for_version,
    traceparent_in,
)
from shared.observability.tracing import NOOP_TRACING, Tracing
from shared.service.retry import RetryPolicy
from shared.storage.dataset_entries import DatasetEntry
from shared.storage.object_store import MemoryStore
from tests.dead_letters.test_malformed_input import BufferedMemoryBus, MemoryTable
from tests.registry.deploy.test_deployment import Stage
from tests.support.registry_events import DatabaseFixture, checkpoint, rejection
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START, model_file, state_of, words
from tests.tracing.spans import (
    Spans,
    link_traceparents,
    parent_traceparent,
    trace_id,
    traceparent_of,
)
from tests.trainer.test_app import World, a_batch, is_owner, record_of, world

__all__ = ["world"]  # a fixture

LOG = structlog.stdlib.get_logger("ratchet.test")


def model(**curation: Any) -> ModelFile:
    """Redacts nothing: some of the random words look like telephone numbers."""
    file = model_file("m", **curation)
    return file.model_copy(update={"redaction": RedactionPolicy(kinds=())})


def received(number: int, **changed: Any) -> Record:
    """Feedback with the trace context of its sender."""
    fields = {
        "event_id": f"e{number}",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": "m",
        "feedback_type": "thumbs_up",
    }
    fields |= {
        "input": words(f"prompt {number}"),
        "output": words(f"answer {number}"),
        "user_id": f"u{number}",
    } | changed
    return Record(
        FEEDBACK_RECEIVED,
        0,
        number,
        b"k",
        json.dumps(fields).encode(),
        (("traceparent", sender(number).encode()),),
    )


def sender(number: int) -> str:
    return f"00-{identity('their trace', number)}-{identity('their span', number)[:16]}-01"


def traceparent(record: Record) -> str:
    traceparent_header = traceparent_in(record.headers)
    assert traceparent_header is not None
    return traceparent_header


async def scored(records: list[Record], tracing: Tracing) -> BufferedMemoryBus:
    bus = BufferedMemoryBus()
    feedback = FeedbackHandler(
        Policies(Models({"m": model()}, Path())),
        bus,
        runtime_of("feedback", ManualClock(START), log=LOG, tracing=tracing),
    )
    for record in records:
        await (await feedback.handle(record))
    return bus


class DatasetRun:
    """Everything that survives a restart of the dataset service."""

    def __init__(self, **curation: Any) -> None:
        self.bus, self.table, self.store = BufferedMemoryBus(), MemoryTable(), MemoryStore()
        self._models = Models({"m": model(**curation)}, Path())

    def dataset(self, tracing: Tracing = NOOP_TRACING) -> Dataset:
        runtime = runtime_of("dataset", ManualClock(START), log=LOG, tracing=tracing)
        retry = RetryPolicy(attempts=1)
        return Dataset(self._models, self.table, self.store, self.bus, runtime, retry)

    async def run(self, records: list[Record], tracing: Tracing) -> None:
        dataset = self.dataset(tracing)
        await dataset.recover(lambda: state_of(self.table))
        for record in records:
            for delivery in await dataset.handle(record, START):
                await delivery

    @property
    def announced(self) -> list[Record]:
        return self.bus.topics.get(TRAINING_BATCHES, [])

    @property
    def entries(self) -> list[DatasetEntry]:
        return [
            DatasetEntry.model_validate_json(value)
            for key, value in self.table.items()
            if "|" in key and b'"decision"' in value
        ]


async def test_a_score_has_the_senders_span_as_parent() -> None:
    spans = Spans()
    bus = await scored([received(number) for number in range(3)], spans.tracing_for("feedback"))
    score_spans = spans.spans_named("score")
    assert [parent_traceparent(span) for span in score_spans] == [
        sender(number) for number in range(3)
    ]
    assert [traceparent(record) for record in bus.topics[FEEDBACK_SCORED]] == [
        traceparent_of(span) for span in score_spans
    ]
    assert [dict(span.attributes or {}) for span in score_spans] == [
        {"ratchet.model": "m", "ratchet.feedback_type": "thumbs_up"}
    ] * 3


async def test_a_dead_letter_fails_its_score_and_keeps_the_header() -> None:
    spans = Spans()
    bus = await scored([received(0, model="other")], spans.tracing_for("feedback"))
    (letter,) = bus.topics[dead_letter_topic(FEEDBACK_RECEIVED)]
    assert DeadLetterInfo.from_headers(letter.headers) is not None
    assert traceparent(letter) == sender(0)
    score_span = spans.only("score")
    assert (
        parent_traceparent(score_span),
        score_span.status.status_code,
        score_span.status.description,
    ) == (
        sender(0),
        StatusCode.ERROR,
        "UnknownModel",
    )


async def test_a_batch_links_to_the_scores_of_its_fifty_events() -> None:
    spans = Spans()
    bus = await scored([received(number) for number in range(53)], spans.tracing_for("feedback"))
    curation = DatasetRun(held_out_share=0)
    await curation.run(bus.topics[FEEDBACK_SCORED], spans.tracing_for("dataset"))
    (record,) = curation.announced
    batch = decode(record.value, record.headers, BatchReady).event
    batch_span = spans.only("batch")
    assert (
        link_traceparents(batch_span)
        == [traceparent_of(span) for span in spans.spans_named("score")][:50]
    )
    assert len(set(link_traceparents(batch_span))) == 50
    assert (
        traceparent(record) == traceparent_of(batch_span) == traceparent_for_batch(batch.batch_id)
    )
    assert (
        parent_traceparent(batch_span),
        dict(batch_span.attributes or {})["ratchet.members"],
    ) == (None, 50)
    waiting = {
        entry.source.offset: entry.traceparent for entry in curation.entries if entry.is_waiting
    }
    assert waiting == {
        number: traceparent_of(spans.spans_named("score")[number]) for number in (50, 51, 52)
    }
    assert [entry.traceparent for entry in curation.entries if not entry.is_waiting] == [None] * 50


async def test_events_pending_over_a_restart_keep_their_links() -> None:
    spans = Spans()
    records = (
        await scored([received(number) for number in range(10)], spans.tracing_for("feedback"))
    ).topics[FEEDBACK_SCORED]
    untraced = (await scored([received(number) for number in range(10)], NOOP_TRACING)).topics[
        FEEDBACK_SCORED
    ]
    assert [traceparent_in(record.headers) for record in untraced] == [None] * 10
    mixed = [record if record.offset % 2 else untraced[record.offset] for record in records]
    curation = DatasetRun(held_out_share=0, batch_size=10)
    await curation.run(mixed[:7], spans.tracing_for("dataset"))
    await curation.run(mixed[7:], spans.tracing_for("dataset"))
    assert (
        link_traceparents(spans.only("batch"))
        == [traceparent_of(span) for span in spans.spans_named("score")][1::2]
    )


async def test_without_tracing_no_trace_context_is_stored() -> None:
    bus = await scored([received(number) for number in range(12)], NOOP_TRACING)
    spans = Spans()
    traced = (
        await scored([received(number) for number in range(12)], spans.tracing_for("feedback"))
    ).topics[FEEDBACK_SCORED]
    untraced_run, reference_run = (
        DatasetRun(held_out_share=0, batch_size=10),
        DatasetRun(held_out_share=0, batch_size=10),
    )
    await untraced_run.run(traced, NOOP_TRACING)
    await reference_run.run(bus.topics[FEEDBACK_SCORED], NOOP_TRACING)
    assert untraced_run.table == reference_run.table
    assert untraced_run.announced == reference_run.announced
    assert all(traceparent_in(record.headers) is None for record in untraced_run.announced)


async def test_a_run_follows_its_batch_and_its_events_follow_the_run(
    world: World,
) -> None:
    spans = Spans()
    world.tracing = spans.tracing_for("trainer")
    batch = a_batch(world)
    record = record_of(batch)
    traced = Record(
        record.topic,
        0,
        0,
        record.key,
        record.value,
        (*record.headers, ("traceparent", traceparent_for_batch(batch.batch_id).encode())),
    )
    handling = asyncio.create_task(world.trainer().handle(traced, is_owner))
    await world.answer(1, "promoted", "v1")
    await handling
    train_span = spans.only("train")
    assert parent_traceparent(train_span) == traceparent_for_batch(batch.batch_id)
    records = [*world.bus.topics[TRAINING_PROGRESS], *world.bus.topics[TRAINING_CHECKPOINTS]]
    assert len(records) > 2
    assert {traceparent_in(record.headers) for record in records} == {traceparent_of(train_span)}
    attributes = dict(train_span.attributes or {})
    assert (attributes["ratchet.run"], attributes["ratchet.outcome"]) == (
        identity("run", batch.batch_id),
        "promotable",
    )


async def test_a_run_of_an_untraced_batch_joins_the_batchs_trace(
    world: World,
) -> None:
    spans = Spans()
    world.tracing, world.child.gain = spans.tracing_for("trainer"), -0.5
    batch = a_batch(world)
    await world.trainer().handle(record_of(batch), is_owner)
    train_span = spans.only("train")
    assert parent_traceparent(train_span) == traceparent_for_batch(batch.batch_id)
    (record,) = world.bus.topics[TRAINING_ROLLBACKS]
    assert traceparent(record) == traceparent_of(train_span)
    assert dict(train_span.attributes or {})["ratchet.outcome"] == "rejected"


def outcome(event: Event, topic: str, parent: str) -> Record:
    value, headers = encode(event, "trainer")
    return Record(topic, 0, 0, b"support", value, (*headers, ("traceparent", parent.encode())))


def registry_traceparents(registry_db: DatabaseFixture) -> dict[str, str | None]:
    rows = registry_db.run(
        lambda session: session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
    )
    return {row.headers["ce_type"]: row.headers.get("traceparent") for row in rows}


@pytest.fixture
def registry_db(tmp_path: Path) -> Iterator[DatabaseFixture]:
    registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    yield registry_db
    registry_db.close()


async def test_spans_of_version_and_deployment_have_their_parents(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    spans = Spans()
    stage = Stage(registry_db, tmp_path, tracing=spans.tracing_for("registry"))
    await stage.reconcile()
    batch, run = "batch of r1", f"00-{trace_id(traceparent_for_batch('batch of r1'))}-{'7' * 16}-01"
    await stage.registry.handle(
        outcome(checkpoint("r1", registry_db.champion), TRAINING_CHECKPOINTS, run)
    )
    await stage.reconcile()
    register, (base, deploy) = spans.only("register"), spans.spans_named("deploy")
    assert (parent_traceparent(register), traceparent_of(register)) == (
        run,
        traceparent_for_version(batch, "r1"),
    )
    assert parent_traceparent(base) is None
    assert parent_traceparent(deploy) == traceparent_of(register)
    attributes = dict(deploy.attributes or {})
    assert attributes == {
        "ratchet.model": "support",
        "ratchet.version": registry_db.champion,
        "ratchet.target": "fake",
    }
    traceparents = registry_traceparents(registry_db)
    assert (
        traceparents["ratchet.VersionRegistered.v1"]
        == traceparents["ratchet.VersionPromoted.v1"]
        == traceparent_of(register)
    )
    assert traceparents["ratchet.VersionDeployed.v1"] == traceparent_of(deploy)

    await stage.reconcile()
    assert spans.names == ["deploy", "register", "deploy"], "no action was needed"
    await stage.registry.handle(
        outcome(rejection("r2", registry_db.champion), TRAINING_ROLLBACKS, run)
    )
    assert [parent_traceparent(span) for span in spans.spans_named("register")] == [run, run]


async def test_a_failed_deployment_fails_its_span(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    spans = Spans()
    stage = Stage(registry_db, tmp_path, tracing=spans.tracing_for("registry"))
    stage.target.answers_wrongly = {1}
    base = registry_db.champion
    await stage.reconcile()
    run = f"00-{trace_id(traceparent_for_batch('batch of r1'))}-{'7' * 16}-01"
    await stage.registry.handle(outcome(checkpoint("r1", "another"), TRAINING_CHECKPOINTS, run))
    await stage.registry.handle(
        outcome(checkpoint("r1", base, evaluation=2), TRAINING_CHECKPOINTS, run)
    )
    assert not await stage.reconcile()
    first, second = spans.spans_named("register")
    failed = spans.spans_named("deploy")[-1]
    assert (
        traceparent_of(first)
        == traceparent_for_version("batch of r1", "r1")
        == parent_traceparent(failed)
    )
    assert traceparent_of(second) not in (traceparent_of(first), run)
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "verify")
    assert registry_traceparents(registry_db)["ratchet.DeploymentFailed.v1"] == traceparent_of(
        failed
    )
