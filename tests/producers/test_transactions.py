"""Transactions of producers: only committed records are handled, and a marker is no lag."""

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shared.events import FeedbackReceived, FeedbackScored, Position
from shared.kafka.client import KafkaConsumer
from shared.kafka.end_offsets import EndOffsets
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED, FEEDBACK_SCORED
from tests.dead_letters.kafka_access import committed, read_all, service
from tests.dead_letters.test_malformed_input import golden_event
from tests.producers.foreign_producers import Producers

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITION = 0
PLACE = (FEEDBACK_RECEIVED, PARTITION)


def feedback(event_id: str) -> bytes:
    return json.dumps(golden_event(FeedbackReceived) | {"event_id": event_id}).encode()


@asynccontextmanager
async def application(broker: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer with transactions; an open transaction is aborted at the end."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, transactional_id=f"app-{uuid4().hex}")
    await producer.start()
    try:
        yield producer
    finally:
        if producer._txn_manager.is_in_transaction():
            await producer.abort_transaction()
        await producer.stop()


async def write(producer: AIOKafkaProducer, *event_ids: str) -> None:
    for event_id in event_ids:
        await producer.send_and_wait(FEEDBACK_RECEIVED, feedback(event_id), partition=PARTITION)


async def high_watermarks(broker: str) -> dict[int, int]:
    """Return the end of each partition that is not empty, as KEDA reads it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(
            [TopicPartition(FEEDBACK_RECEIVED, number) for number in range(4)]
        )
        return {place.partition: end for place, end in ends.items() if end}
    finally:
        await consumer.stop()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.2)


async def test_only_committed_feedback_is_scored(producers: Producers, tmp_path: Path) -> None:
    """The broker's end, read as KEDA does, is committed in the end; nothing counts as stalled."""
    broker = producers.bootstrap_servers
    scoring = service("feedback", broker, tmp_path, RATCHET_STALLED_SECONDS="5")
    await scoring.start()

    async def scored() -> list[str]:
        return [
            decode(record.value, record.headers, FeedbackScored).event.event_id
            for record in await read_all(broker, FEEDBACK_SCORED)
        ]

    async def is_all_committed() -> bool:
        return await committed(broker, "ratchet-feedback", FEEDBACK_RECEIVED) == (
            await high_watermarks(broker)
        )

    try:
        async with application(broker) as producer, application(broker) as other:
            async with producer.transaction():
                await write(producer, "committed")
            await producer.begin_transaction()
            await write(producer, *(f"aborted-{number}" for number in range(50)))
            await producer.abort_transaction()
            for mode in ("transaction", "aborted"):
                records = [("k", feedback(f"franz-{mode}").decode())]
                await producers.send("franz-go", FEEDBACK_RECEIVED, records, mode)
            await until(is_all_committed)
            assert set(await scored()) == {"committed", "franz-transaction"}

            await producer.begin_transaction()
            await write(producer, "open")
            async with other.transaction():
                await write(other, "behind")
            await asyncio.sleep(8)
            assert scoring.is_live(), "an open transaction is reported as a stall"
            assert 'ratchet_consumer_lag_records{group="ratchet-feedback"' in scoring.metrics
            assert set(await scored()) == {"committed", "franz-transaction"}
            await producer.commit_transaction()
            await until(is_all_committed)
    finally:
        status = scoring.stop()
    assert status == 0, scoring.log
    assert (await scored())[-2:] == ["open", "behind"]
    assert len(await scored()) == 4


async def test_the_lag_is_that_of_committed_records(new_topics: str) -> None:
    ends = EndOffsets(new_topics)
    await ends.start()
    try:
        async with application(new_topics) as producer:
            async with producer.transaction():
                await write(producer, "a", "b")
            assert await ends.lag({PLACE: 2}) == {PLACE: 1}, "perhaps a record"
            assert await ends.lag({PLACE: 2}) == {}
            assert ends.end_of_empty(PLACE, 2) == 3
            assert ends.end_of_empty(PLACE, 1) == 1
            await producer.begin_transaction()
            await write(producer, "c")
            assert await ends.lag({PLACE: 2}) == {}
            await producer.abort_transaction()
            await ends.lag({PLACE: 2})
            assert await ends.lag({PLACE: 2}) == {}
            assert ends.end_of_empty(PLACE, 2) == 5
            async with producer.transaction():
                await write(producer, "d")
            assert [await ends.lag({PLACE: 2}) for _ in range(3)] == [{PLACE: 2}] * 3
            assert await ends.lag({PLACE: 0}) == {PLACE: 7}
    finally:
        await ends.stop()


async def test_a_reader_ends_at_the_last_committed_record(new_topics: str) -> None:
    reader = KafkaTopicReader(new_topics, [FEEDBACK_RECEIVED])
    await reader.start()
    try:
        async with application(new_topics) as producer:
            async with producer.transaction():
                await write(producer, "a")
            await producer.begin_transaction()
            await write(producer, "b")
            await producer.abort_transaction()
            await producer.begin_transaction()
            await write(producer, "c")
            assert [record.value for record in await reader.read_new()] == [feedback("a")]
            assert await reader.lag() == 0
            records = [
                await reader.read_at(
                    Position(topic=FEEDBACK_RECEIVED, partition=PARTITION, offset=offset)
                )
                for offset in range(6)
            ]
            assert [record is not None for record in records] == [True] + [False] * 5
            await producer.commit_transaction()
            assert [record.value for record in await reader.read_new()] == [feedback("c")]
    finally:
        await reader.stop()


async def test_a_group_member_reads_committed_records(new_topics: str) -> None:
    consumer = KafkaConsumer(new_topics, "transactions", [FEEDBACK_RECEIVED])
    await consumer.start()
    received = []
    try:
        async with application(new_topics) as producer:
            await producer.begin_transaction()
            await write(producer, "aborted")
            await producer.abort_transaction()
            async with producer.transaction():
                await write(producer, "committed")
        async for record in consumer.records():
            received.append(record.value)
            consumer.stop_after_current()
    finally:
        await consumer.stop()
    assert received == [feedback("committed")]


def test_every_consumer_reads_committed_records() -> None:
    calls = [
        ast.unparse(node)
        for folder in ("shared", "services", "ratchet", "clients", "benchmarks")
        for path in Path(folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AIOKafkaConsumer")
    ]
    assert len(calls) >= 8
    assert [call for call in calls if "isolation_level=READ_COMMITTED" not in call] == []
