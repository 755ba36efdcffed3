"""What follows what, through the handlers of all services, on twins in memory."""

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
from services.feedback.app import Feedback
from services.feedback.scoring import Policies
from services.registry.store.tables import OutboxRow
from shared.clock import ManualClock
from shared.config.model_file import ModelFile, Models
from shared.events import BatchReady, Event
from shared.identity import identity
from shared.messaging.bus import Record
from shared.messaging.codec import decode, encode
from shared.messaging.dead_letters import Notice
from shared.messaging.topics import (
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    TRAINING_CHECKPOINTS,
    TRAINING_PROGRESS,
    TRAINING_ROLLBACKS,
    dead_letter_of,
)
from shared.observability.metrics import Metrics
from shared.observability.trace_context import place_of_batch, place_of_version, traceparent_in
from shared.observability.tracing import UNTRACED, Tracing
from shared.storage.dataset_entries import Entry
from shared.storage.object_store import MemoryStore
from tests.dataset.events import START, model_file, state_of, words
from tests.dead_letters.test_odd_input import Bus, Table
from tests.registry.deploy.test_deployment import Stage
from tests.registry.samples import Books, checkpoint, rejection
from tests.tracing.spans import Spans, links, parent, place, trace
from tests.trainer.test_app import World, a_batch, announced, mine, world

__all__ = ["world"]  # a fixture

LOG = structlog.stdlib.get_logger("ratchet.test")


def model(**curation: Any) -> ModelFile:
    return model_file("m", **curation)


def received(number: int, **changed: Any) -> Record:
    """Feedback whose sender had a trace of its own."""
    said = {
        "event_id": f"e{number}",
        "occurred_at": "2026-01-01T00:00:00Z",
        "model": "m",
        "feedback_type": "thumbs_up",
    }
    said |= {
        "input": words(f"prompt {number}"),
        "output": words(f"answer {number}"),
        "user_id": f"u{number}",
    } | changed
    return Record(
        FEEDBACK_RECEIVED,
        0,
        number,
        b"k",
        json.dumps(said).encode(),
        (("traceparent", sender(number).encode()),),
    )


def sender(number: int) -> str:
    return f"00-{identity('their trace', number)}-{identity('their span', number)[:16]}-01"


def traceparent(record: Record) -> str:
    found = traceparent_in(record.headers)
    assert found is not None
    return found


async def scored(records: list[Record], tracing: Tracing) -> Bus:
    bus = Bus()
    feedback = Feedback(
        Policies(Models({"m": model()}, Path())),
        bus,
        Metrics("feedback"),
        ManualClock(START),
        LOG,
        tracing,
    )
    for record in records:
        await (await feedback.handle(record))
    return bus


class Curation:
    """All that outlives a dataset service."""

    def __init__(self, **curation: Any) -> None:
        self.bus, self.table, self.store = Bus(), Table(), MemoryStore()
        self._models = Models({"m": model(**curation)}, Path())

    async def run(self, records: list[Record], tracing: Tracing) -> None:
        clock = ManualClock(START)
        dataset = Dataset(
            self._models,
            self.table,
            self.store,
            self.bus,
            Metrics("dataset"),
            clock,
            LOG,
            1,
            tracing=tracing,
        )
        await dataset.recover(lambda: state_of(self.table))
        for record in records:
            for delivery in await dataset.handle(record, START):
                await delivery

    @property
    def announced(self) -> list[Record]:
        return self.bus.topics.get(TRAINING_BATCHES, [])

    @property
    def entries(self) -> list[Entry]:
        return [
            Entry.model_validate_json(value)
            for key, value in self.table.items()
            if "|" in key and b'"decision"' in value
        ]


async def test_a_score_follows_what_the_sender_did() -> None:
    spans = Spans()
    bus = await scored([received(number) for number in range(3)], spans.of("feedback"))
    done = spans.named("score")
    assert [parent(span) for span in done] == [sender(number) for number in range(3)]
    assert [traceparent(record) for record in bus.topics[FEEDBACK_SCORED]] == [
        place(span) for span in done
    ]
    assert [dict(span.attributes or {}) for span in done] == [
        {"ratchet.model": "m", "ratchet.feedback_type": "thumbs_up"}
    ] * 3


async def test_a_dead_letter_is_a_failed_score_and_keeps_the_senders_header() -> None:
    spans = Spans()
    bus = await scored([received(0, model="other")], spans.of("feedback"))
    (letter,) = bus.topics[dead_letter_of(FEEDBACK_RECEIVED)]
    assert Notice.read(letter.headers) is not None
    assert traceparent(letter) == sender(0)
    done = spans.one("score")
    assert (parent(done), done.status.status_code, done.status.description) == (
        sender(0),
        StatusCode.ERROR,
        "UnknownModel",
    )


async def test_a_batch_links_to_the_scores_of_its_fifty_events() -> None:
    spans = Spans()
    bus = await scored([received(number) for number in range(53)], spans.of("feedback"))
    curation = Curation(held_out_share=0)
    await curation.run(bus.topics[FEEDBACK_SCORED], spans.of("dataset"))
    (record,) = curation.announced
    batch = decode(record.value, record.headers, BatchReady).event
    done = spans.one("batch")
    assert links(done) == [place(span) for span in spans.named("score")][:50]
    assert len(set(links(done))) == 50
    assert traceparent(record) == place(done) == place_of_batch(batch.batch_id)
    assert (parent(done), dict(done.attributes or {})["ratchet.members"]) == (None, 50)
    waiting = {entry.source.offset: entry.traceparent for entry in curation.entries if entry.waits}
    assert waiting == {number: place(spans.named("score")[number]) for number in (50, 51, 52)}
    assert [entry.traceparent for entry in curation.entries if not entry.waits] == [None] * 50


async def test_events_that_waited_through_a_restart_are_linked_to_and_those_without_a_trace_are_not() -> (
    None
):
    spans = Spans()
    records = (
        await scored([received(number) for number in range(10)], spans.of("feedback"))
    ).topics[FEEDBACK_SCORED]
    untraced = (await scored([received(number) for number in range(10)], UNTRACED)).topics[
        FEEDBACK_SCORED
    ]
    assert [traceparent_in(record.headers) for record in untraced] == [None] * 10
    mixed = [record if record.offset % 2 else untraced[record.offset] for record in records]
    curation = Curation(held_out_share=0, batch_size=10)
    await curation.run(mixed[:7], spans.of("dataset"))
    await curation.run(mixed[7:], spans.of("dataset"))
    assert links(spans.one("batch")) == [place(span) for span in spans.named("score")][1::2]


async def test_without_traces_nothing_is_kept_or_said_of_what_came() -> None:
    bus = await scored([received(number) for number in range(12)], UNTRACED)
    spans = Spans()
    traced = (
        await scored([received(number) for number in range(12)], spans.of("feedback"))
    ).topics[FEEDBACK_SCORED]
    off, plain = (
        Curation(held_out_share=0, batch_size=10),
        Curation(held_out_share=0, batch_size=10),
    )
    await off.run(traced, UNTRACED)
    await plain.run(bus.topics[FEEDBACK_SCORED], UNTRACED)
    assert off.table == plain.table
    assert off.announced == plain.announced
    assert all(traceparent_in(record.headers) is None for record in off.announced)


async def test_a_run_follows_its_batch_and_all_that_is_said_of_it_follows_the_run(
    world: World,
) -> None:
    spans = Spans()
    world.tracing = spans.of("trainer")
    batch = a_batch(world)
    said = announced(batch)
    told = Record(
        said.topic,
        0,
        0,
        said.key,
        said.value,
        (*said.headers, ("traceparent", place_of_batch(batch.batch_id).encode())),
    )
    handling = asyncio.create_task(world.trainer().handle(told, mine))
    await world.answer(1, "promoted", "v1")
    await handling
    done = spans.one("train")
    assert parent(done) == place_of_batch(batch.batch_id)
    records = [*world.bus.topics[TRAINING_PROGRESS], *world.bus.topics[TRAINING_CHECKPOINTS]]
    assert len(records) > 2
    assert {traceparent_in(record.headers) for record in records} == {place(done)}
    attributes = dict(done.attributes or {})
    assert (attributes["ratchet.run"], attributes["ratchet.outcome"]) == (
        identity("run", batch.batch_id),
        "promotable",
    )


async def test_a_run_of_a_batch_that_was_announced_untraced_is_in_the_trace_of_that_batch(
    world: World,
) -> None:
    spans = Spans()
    world.tracing, world.child.gain = spans.of("trainer"), -0.5
    batch = a_batch(world)
    await world.trainer().handle(announced(batch), mine)
    done = spans.one("train")
    assert parent(done) == place_of_batch(batch.batch_id)
    (record,) = world.bus.topics[TRAINING_ROLLBACKS]
    assert traceparent(record) == place(done)
    assert dict(done.attributes or {})["ratchet.outcome"] == "rejected"


def outcome(event: Event, topic: str, follows: str) -> Record:
    value, headers = encode(event, "trainer")
    return Record(topic, 0, 0, b"support", value, (*headers, ("traceparent", follows.encode())))


def said_by_the_registry(books: Books) -> dict[str, str | None]:
    rows = books.do(lambda session: session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all())
    return {row.headers["ce_type"]: row.headers.get("traceparent") for row in rows}


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(f"sqlite:///{tmp_path}/registry.db")
    yield books
    books.close()


async def test_a_version_follows_its_run_and_a_deployment_its_version(
    books: Books, tmp_path: Path
) -> None:
    spans = Spans()
    stage = Stage(books, tmp_path, tracing=spans.of("registry"))
    await stage.reconcile()
    batch, run = "batch of r1", f"00-{trace(place_of_batch('batch of r1'))}-{'7' * 16}-01"
    await stage.registry.handle(
        outcome(checkpoint("r1", books.champion), TRAINING_CHECKPOINTS, run)
    )
    await stage.reconcile()
    register, (base, deploy) = spans.one("register"), spans.named("deploy")
    assert (parent(register), place(register)) == (run, place_of_version(batch, "r1"))
    assert parent(base) is None
    assert parent(deploy) == place(register)
    attributes = dict(deploy.attributes or {})
    assert attributes == {
        "ratchet.model": "support",
        "ratchet.version": books.champion,
        "ratchet.target": "fake",
    }
    said = said_by_the_registry(books)
    assert (
        said["ratchet.VersionRegistered.v1"]
        == said["ratchet.VersionPromoted.v1"]
        == place(register)
    )
    assert said["ratchet.VersionDeployed.v1"] == place(deploy)

    await stage.reconcile()
    assert spans.names == ["deploy", "register", "deploy"], "nothing had to be done"
    await stage.registry.handle(outcome(rejection("r2", books.champion), TRAINING_ROLLBACKS, run))
    assert [parent(span) for span in spans.named("register")] == [run, run]


async def test_a_deployment_that_fails_is_a_failed_span_and_a_second_evaluation_has_a_place_of_its_own(
    books: Books, tmp_path: Path
) -> None:
    spans = Spans()
    stage = Stage(books, tmp_path, tracing=spans.of("registry"))
    stage.target.answers_wrongly = {1}
    base = books.champion
    await stage.reconcile()
    run = f"00-{trace(place_of_batch('batch of r1'))}-{'7' * 16}-01"
    await stage.registry.handle(outcome(checkpoint("r1", "another"), TRAINING_CHECKPOINTS, run))
    await stage.registry.handle(
        outcome(checkpoint("r1", base, evaluation=2), TRAINING_CHECKPOINTS, run)
    )
    assert not await stage.reconcile()
    first, second = spans.named("register")
    failed = spans.named("deploy")[-1]
    assert place(first) == place_of_version("batch of r1", "r1") == parent(failed)
    assert place(second) not in (place(first), run)
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "verify")
    assert said_by_the_registry(books)["ratchet.DeploymentFailed.v1"] == place(failed)
