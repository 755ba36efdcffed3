"""Every consumer gets every kind of wrong record: each becomes a dead letter, none stops the
consumer, and the good record behind them is handled.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from services.dataset.builder.build_order import BuildOrder
from services.dataset.builder.requests import TrainingRequests
from services.dataset.handlers import Dataset
from services.feedback.app import FeedbackHandler
from services.feedback.scoring import Policies
from services.registry.app import SUBSCRIPTIONS
from services.registry.store.tables import LiveRewardRow
from shared.clock import ManualClock
from shared.events import (
    BatchReady,
    Event,
    FeedbackReceived,
    FeedbackScored,
    TrainingProgressed,
    TrainingRequested,
    UserForgotten,
    VersionDeployed,
    WaitEnded,
    WithdrawalRequested,
)
from shared.messaging.bus import MemoryBus, Record
from shared.messaging.dead_letters import original_headers
from shared.messaging.topics import (
    FEEDBACK_RECEIVED,
    FEEDBACK_SCORED,
    TRAINING_BATCHES,
    TRAINING_REQUESTS,
    dead_letter_topic,
)
from shared.service.consume import consume
from shared.service.retry import RetryPolicy
from shared.storage.object_store import MemoryStore
from tests.dead_letters.test_malformed_input import (
    LOG,
    MODELS,
    BufferedMemoryBus,
    MemoryTable,
    golden_event,
    letters,
)
from tests.registry.deploy.test_deployment import Stage
from tests.support.registry_events import DatabaseFixture, feedback
from tests.support.runtime import runtime_of
from tests.support.scored_feedback import START
from tests.support.wrong_records import (
    Fields,
    Wire,
    artefacts_of,
    headers_of,
    odd_records,
    wrong_records,
)
from tests.trainer.test_app import is_owner, started_world

pytestmark = pytest.mark.timeout(240)

Handle = Callable[[Record], Awaitable[None]]


async def feedback_service(_: Path) -> tuple[BufferedMemoryBus, Handle]:
    bus = BufferedMemoryBus()
    handler = FeedbackHandler(
        Policies(MODELS), bus, runtime_of("feedback", ManualClock(START), log=LOG)
    )

    async def handle(record: Record) -> None:
        await (await handler.handle(record))

    return bus, handle


async def dataset_service(_: Path) -> tuple[BufferedMemoryBus, Handle]:
    bus = BufferedMemoryBus()
    runtime = runtime_of("dataset", ManualClock(START), log=LOG)
    dataset = Dataset(MODELS, MemoryTable(), MemoryStore(), bus, runtime, RetryPolicy(attempts=1))
    await dataset.recover(dict)

    async def handle(record: Record) -> None:
        for delivery in await dataset.handle(record, START):
            await delivery

    return bus, handle


async def builder_service(folder: Path) -> tuple[MemoryBus, Handle]:
    """A builder whose requests are refused: there is no such file."""
    bus, store = MemoryBus(), MemoryStore()

    async def read_batches() -> Sequence[BatchReady]:
        return ()

    async def build(order: BuildOrder, report_progress: Any) -> BatchReady:
        store.get(order.request.data.uri)
        raise AssertionError("the store is empty")

    requests = TrainingRequests(
        MODELS, folder, store, bus, read_batches, build, runtime_of("builder", log=LOG)
    )
    return bus, requests.handle


async def trainer_service(folder: Path) -> tuple[MemoryBus, Handle]:
    """A trainer whose runs fail: the batches have no objects."""
    world = await started_world(folder)
    return world.bus, partial(world.trainer().handle, is_owner=is_owner)


async def registry_service(folder: Path) -> tuple[MemoryBus, Handle]:
    stage = Stage(DatabaseFixture(f"sqlite:///{folder}/registry.db"), folder)
    return MemoryBus(), stage.registry.handle


CONSUMERS: Sequence[tuple[str, type[Event], Callable[[Path], Awaitable[tuple[Any, Handle]]]]] = (
    (FEEDBACK_RECEIVED, FeedbackReceived, feedback_service),
    (FEEDBACK_RECEIVED, UserForgotten, feedback_service),
    (FEEDBACK_SCORED, FeedbackScored, dataset_service),
    (FEEDBACK_SCORED, WithdrawalRequested, dataset_service),
    (FEEDBACK_SCORED, WaitEnded, dataset_service),
    (TRAINING_REQUESTS, TrainingRequested, builder_service),
    (TRAINING_BATCHES, BatchReady, trainer_service),
    *(
        (topic, subscription.event_type, registry_service)
        for topic, subscription in SUBSCRIPTIONS.items()
    ),
)
EVERY_CONSUMER = pytest.mark.parametrize(
    ("topic", "event", "service"),
    CONSUMERS,
    ids=[f"{make.__name__}-{event.__name__}" for _, event, make in CONSUMERS],
)


def valid_fields(event: type[Event], topic: str, service: Any) -> Fields:
    model = "m" if service is trainer_service else "support"
    return golden_event(event) | {"model": model}


def records_of(topic: str, wires: Mapping[str, Wire]) -> list[Record]:
    return [
        Record(topic, 0, offset, b"key", value, tuple(headers))
        for offset, (value, headers) in enumerate(wires.values())
    ]


async def consume_all(
    records: Sequence[Record], bus: MemoryBus, handle: Handle
) -> tuple[set[int], dict[int, Record]]:
    """Return the offsets that were handled without an error, and the dead letters."""
    handled: set[int] = set()

    async def arriving() -> AsyncIterator[Record]:
        for record in records:
            yield record

    async def handle_one(record: Record) -> None:
        await handle(record)
        handled.add(record.offset)

    retry = RetryPolicy(attempts=1)
    await consume(arriving(), handle_one, bus.commit, bus, runtime_of(log=LOG), retry)
    topic = records[0].topic
    assert bus.committed == {topic: len(records)}
    return handled, letters(bus, topic)


@EVERY_CONSUMER
async def test_wrong_record_is_a_dead_letter(
    topic: str, event: type[Event], service: Any, tmp_path: Path
) -> None:
    fields = valid_fields(event, topic, service)
    other = VersionDeployed if event is TrainingProgressed else TrainingProgressed
    wrong = wrong_records(event, fields, other)
    if event in (UserForgotten, WithdrawalRequested, WaitEnded):
        # Without a type, a record of their topics is feedback, or nothing.
        wrong["no headers"] = (json.dumps(fields).encode(), [])
    good = {"good": (wrong["an event of another topic"][0], headers_of(event))}
    records = records_of(topic, wrong | good)
    bus, handle = await service(tmp_path)
    _, dead = await consume_all(records, bus, handle)
    outcomes = dict(
        zip([*wrong, *good], [record.offset in dead for record in records], strict=True)
    )
    assert outcomes == dict.fromkeys(wrong, True) | {"good": False}
    for record in records[:-1]:
        letter = dead[record.offset]
        assert (letter.key, letter.value) == (record.key, record.value)
        assert original_headers(letter.headers) == original_headers(record.headers)


@EVERY_CONSUMER
async def test_odd_value_in_any_place_stops_no_consumer(
    topic: str, event: type[Event], service: Any, tmp_path: Path
) -> None:
    """Each is an event or a dead letter; which of both depends on the place."""
    odd = odd_records(event, valid_fields(event, topic, service))
    records = records_of(topic, odd)
    bus, handle = await service(tmp_path)
    handled, dead = await consume_all(records, bus, handle)
    assert len(odd) > 50
    assert handled | dead.keys() == set(range(len(records)))
    assert len(dead) > len(records) / 4


async def test_live_feedback_skips_wrong_records(tmp_path: Path) -> None:
    """The dataset service has their dead letters."""
    registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    stage = Stage(registry_db, tmp_path)
    fields = golden_event(FeedbackScored)
    wrong = wrong_records(FeedbackScored, fields, TrainingProgressed)
    odd = odd_records(FeedbackScored, fields)
    event = feedback(registry_db.champion, 0.5, None)
    good = {"good": (event.model_dump_json().encode(), headers_of(FeedbackScored))}
    await stage.registry.record_live_feedback(records_of(FEEDBACK_SCORED, wrong | odd | good))
    count = select(func.count()).select_from(LiveRewardRow)
    assert registry_db.run(lambda session: session.scalar(count)) == 1
    assert stage.bus.topics.get(dead_letter_topic(FEEDBACK_SCORED)) is None
    registry_db.close()


def test_consumers_and_artefacts_are_complete() -> None:
    """Each event with an artefact that a consumer reads is fed with wrong ones."""
    with_artefacts = {
        event.__name__ for _, event, _ in CONSUMERS if artefacts_of(golden_event(event))
    }
    assert with_artefacts == {
        "TrainingRequested",
        "BatchReady",
        "CheckpointSaved",
        "TrainingRolledBack",
    }
    assert len(CONSUMERS) == 14
