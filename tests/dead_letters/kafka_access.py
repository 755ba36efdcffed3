"""Access to a broker for these tests: records, offsets, topics."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.kafka.client import KafkaProducer
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.codec import Header
from tests.support.service_process import ServiceProcess

MODEL_FILE = "model: support\nbase: {training: base, serving: base.gguf}\n"


def service(name: str, bootstrap_servers: str, folder: Path, **settings: str) -> ServiceProcess:
    """Build a service with the model `support`."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "support.yaml").write_text(MODEL_FILE)
    return ServiceProcess(name, bootstrap_servers, folder, **settings)


async def read_all(bootstrap_servers: str, topic: str) -> list[Record]:
    """Return all records of a topic."""
    reader = KafkaTopicReader(bootstrap_servers, [topic])
    try:
        await reader.start()
        return await reader.read_new()
    finally:
        await reader.stop()


async def put(
    bootstrap_servers: str,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None, Sequence[Header]]],
) -> None:
    """Publish records (key, value, headers) to a topic, in order."""
    producer = KafkaProducer(bootstrap_servers)
    await producer.start()
    try:
        for delivery in [
            await producer.send_nowait(topic, key, value, headers)
            for key, value, headers in records
        ]:
            await delivery
    finally:
        await producer.stop()


async def committed(bootstrap_servers: str, group: str, topic: str) -> dict[int, int]:
    """Return the committed offset of each partition that has one."""
    async with _admin(bootstrap_servers) as admin:
        offsets = await admin.list_consumer_group_offsets(group)
    return {
        partition.partition: metadata.offset
        for partition, metadata in offsets.items()
        if partition.topic == topic and metadata.offset > 0
    }


async def all_committed(
    bootstrap_servers: str, service: ServiceProcess, group: str, topic: str, seconds: float = 120
) -> None:
    """Wait until a group has committed the end of every partition. Fails if its service ends."""
    records = await read_all(bootstrap_servers, topic)
    ends: dict[int, int] = {}
    for record in records:
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    for _ in range(int(seconds / 0.2)):
        assert service.process is not None
        assert service.process.poll() is None, service.log
        if await committed(bootstrap_servers, group, topic) == ends:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{group} has not read {topic} to its end in {seconds} s\n{service.log}")


async def delete_topics(bootstrap_servers: str) -> None:
    """Delete every topic except internal ones, and wait until they are deleted."""
    async with _admin(bootstrap_servers) as admin:
        while topics := [
            topic for topic in await admin.list_topics() if not topic.startswith("__")
        ]:
            await admin.delete_topics(topics)
            await asyncio.sleep(0.1)


async def set_max_message_bytes(bootstrap_servers: str, topic: str, size: int) -> None:
    """Set a topic's maximum record size in bytes."""
    await set_topic(bootstrap_servers, topic, "max.message.bytes", str(size))


async def set_topic(bootstrap_servers: str, topic: str, setting: str, value: str) -> None:
    """Set one setting of a topic; the others get the broker's defaults."""
    async with _admin(bootstrap_servers) as admin:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {setting: value})]
        )


@asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
