"""Behaviour of the bus and its consume loop, in memory and on Apache Kafka."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from shared.errors import ContractViolation, PartitionLost, StorageUnavailable
from shared.kafka.client import KafkaConsumer, KafkaProducer
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import MemoryBus, Producer, Record
from shared.messaging.topics import dead_letter_topic
from shared.service.consume import consume, consume_batches
from shared.service.retry import RetryPolicy
from tests.support.runtime import runtime_of


class Bus(Protocol):
    """A topic with one partition, its dead-letter topic, and a consumer group of the topic."""

    topic: str

    async def produce(self, *values: bytes) -> None:
        """Produce records with the key `key` and the value as `ce_id` header."""

    @property
    def producer(self) -> Producer: ...

    def records(self) -> AsyncGenerator[Record, None]:
        """Yield records from the committed offset to the present end, as a new group member."""

    def batches(self) -> AsyncGenerator[Sequence[Record], None]:
        """Yield the same records in batches."""

    async def commit(self, record: Record) -> None: ...

    async def committed(self) -> int: ...

    async def dead_letters(self) -> list[Record]: ...


class InMemory:
    """The in-memory bus."""

    def __init__(self) -> None:
        self.topic = "test.suite"
        self.producer = MemoryBus()

    async def produce(self, *values: bytes) -> None:
        for value in values:
            await self.producer.send(self.topic, b"key", value, [("ce_id", value)])

    async def records(self) -> AsyncGenerator[Record, None]:
        async for record in self.producer.records(self.topic):
            yield record

    async def batches(self) -> AsyncGenerator[Sequence[Record], None]:
        yield [record async for record in self.producer.records(self.topic)]

    async def commit(self, record: Record) -> None:
        await self.producer.commit(record)

    async def committed(self) -> int:
        return self.producer.committed.get(self.topic, 0)

    async def dead_letters(self) -> list[Record]:
        return self.producer.topics.get(dead_letter_topic(self.topic), [])


class OnKafka:
    """A real broker."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.topic = f"test.{uuid4().hex}"
        self.producer = KafkaProducer(bootstrap_servers)
        self._bootstrap_servers = bootstrap_servers
        self._group = f"group-{self.topic}"
        self._end = 0
        self._member: KafkaConsumer | None = None

    async def produce(self, *values: bytes) -> None:
        for value in values:
            await self.producer.send(self.topic, b"key", value, [("ce_id", value)])
        self._end += len(values)

    async def records(self) -> AsyncGenerator[Record, None]:
        async with self._joined() as member, aclosing(member.records()) as records:
            async for record in records:
                if record.offset + 1 == self._end:
                    member.stop_after_current()
                yield record

    async def batches(self) -> AsyncGenerator[Sequence[Record], None]:
        async with self._joined() as member, aclosing(member.batches(100)) as batches:
            async for batch in batches:
                if batch[-1].offset + 1 == self._end:
                    member.stop_after_current()
                yield batch

    async def commit(self, record: Record) -> None:
        assert self._member is not None
        await self._member.commit(record)

    async def committed(self) -> int:
        client = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=self._group,
            enable_auto_commit=False,
        )
        await client.start()
        try:
            return await client.committed(TopicPartition(self.topic, 0)) or 0
        finally:
            await client.stop()

    async def dead_letters(self) -> list[Record]:
        reader = KafkaTopicReader(self._bootstrap_servers, [dead_letter_topic(self.topic)])
        await reader.start()
        try:
            return await reader.read_new()
        finally:
            await reader.stop()

    @asynccontextmanager
    async def _joined(self) -> AsyncIterator[KafkaConsumer]:
        self._member = KafkaConsumer(self._bootstrap_servers, self._group, [self.topic])
        await self._member.start()
        try:
            yield self._member
        finally:
            await self._member.stop()

    async def start(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap_servers)
        await admin.start()
        try:
            names = (self.topic, dead_letter_topic(self.topic))
            await admin.create_topics([NewTopic(name, 1, 1) for name in names])
        finally:
            await admin.close()
        await self.producer.start()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def bootstrap_servers(kind: str, request: pytest.FixtureRequest) -> str:
    """Start the broker only for the tests that run on it."""
    return request.getfixturevalue("broker") if kind == "kafka" else ""


@asynccontextmanager
async def opened(bootstrap_servers: str) -> AsyncIterator[Bus]:
    if not bootstrap_servers:
        yield InMemory()
        return
    bus = OnKafka(bootstrap_servers)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.producer.stop()


class Worker:
    """Remembers the records it handled; raises the errors given for a value, one per attempt."""

    def __init__(self, failures: dict[bytes, list[Exception]] | None = None) -> None:
        self.failures = failures or {}
        self.handled: list[bytes | None] = []

    async def handle(self, record: Record) -> None:
        if record.value and self.failures.get(record.value):
            raise self.failures[record.value].pop(0)
        self.handled.append(record.value)

    async def handle_batch(self, records: Sequence[Record]) -> None:
        for record in records:
            await self.handle(record)


async def run(
    bus: Bus, worker: Worker, attempts: int = 3, producer: Producer | None = None
) -> None:
    async with aclosing(bus.records()) as records:
        await consume(
            records,
            worker.handle,
            bus.commit,
            producer or bus.producer,
            runtime_of(),
            RetryPolicy(attempts, seconds=0),
        )


async def run_batches(bus: Bus, worker: Worker) -> None:
    async with aclosing(bus.batches()) as batches:
        await consume_batches(
            batches, worker.handle_batch, bus.commit, runtime_of(), RetryPolicy(3, seconds=0)
        )


async def test_records_are_handled_in_order_and_committed(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker()
        await bus.produce(b"a", b"b", b"c")
        await run(bus, worker)
        assert worker.handled == [b"a", b"b", b"c"]
        assert await bus.committed() == 3


async def test_a_new_member_continues_after_the_committed_offset(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker()
        await bus.produce(b"a")
        await run(bus, worker)
        await bus.produce(b"b")
        await run(bus, worker)
        assert worker.handled == [b"a", b"b"]


async def test_an_unprocessable_record_becomes_a_dead_letter(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker({b"b": [ContractViolation("is too long", "output")]})
        await bus.produce(b"a", b"b", b"c")
        await run(bus, worker)
        assert worker.handled == [b"a", b"c"]
        (dead,) = await bus.dead_letters()
        headers = dict(dead.headers)
        assert (dead.key, dead.value, headers["ce_id"]) == (b"key", b"b", b"b")
        assert headers["ratchet_dlq_reason"] == b"is too long"
        assert headers["ratchet_dlq_field"] == b"output"
        assert headers["ratchet_dlq_offset"] == b"1"
        assert await bus.committed() == 3


async def test_an_unavailable_dependency_is_retried(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker({b"b": [StorageUnavailable("away"), StorageUnavailable("away")]})
        await bus.produce(b"a", b"b")
        await run(bus, worker)
        assert worker.handled == [b"a", b"b"]


async def test_the_last_failed_attempt_ends_the_loop_uncommitted(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker({b"b": [StorageUnavailable("away")] * 9})
        await bus.produce(b"a", b"b", b"c")
        with pytest.raises(StorageUnavailable):
            await run(bus, worker)
        assert worker.handled == [b"a"]
        assert await bus.committed() == 1


async def test_an_unexpected_error_ends_the_loop_uncommitted(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        await bus.produce(b"a")
        with pytest.raises(ZeroDivisionError):
            await run(bus, Worker({b"a": [ZeroDivisionError()]}))
        assert await bus.committed() == 0


async def test_an_unwritable_dead_letter_ends_the_loop_uncommitted(bootstrap_servers: str) -> None:
    class RefusingProducer(MemoryBus):
        async def send(
            self, topic: str, key: bytes | None, value: bytes | None, headers: object
        ) -> None:
            raise StorageUnavailable("the dead-letter topic is full")

    async with opened(bootstrap_servers) as bus:
        await bus.produce(b"a")
        with pytest.raises(StorageUnavailable):
            await run(bus, Worker({b"a": [ContractViolation("no")]}), 1, RefusingProducer())
        assert await bus.committed() == 0


async def test_a_record_of_a_lost_partition_is_not_committed(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker({b"a": [PartitionLost("moved")]})
        await bus.produce(b"a")
        await run(bus, worker)
        assert (worker.handled, await bus.committed()) == ([], 0)
        await run(bus, worker)
        assert (worker.handled, await bus.committed()) == ([b"a"], 1)


async def test_a_batch_is_committed_after_its_effect(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        worker = Worker()
        await bus.produce(b"a", b"b", b"c")
        await run_batches(bus, worker)
        assert worker.handled == [b"a", b"b", b"c"]
        assert await bus.committed() == 3


async def test_a_failed_batch_is_not_committed(bootstrap_servers: str) -> None:
    async with opened(bootstrap_servers) as bus:
        await bus.produce(b"a", b"b")
        with pytest.raises(ZeroDivisionError):
            await run_batches(bus, Worker({b"a": [ZeroDivisionError()]}))
        assert await bus.committed() == 0


async def test_the_loop_leaves_no_task_running() -> None:
    before = asyncio.all_tasks()
    bus = InMemory()
    await bus.produce(b"a")
    await run(bus, Worker())
    assert asyncio.all_tasks() == before
