"""Readers of whole topics from the beginning, without a consumer group, to build views of other
services' events.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import BusUnavailable
from shared.events import Position
from shared.kafka.client import READ_COMMITTED, record_of, start_client
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import Record


class TopicReader(Protocol):
    """Reads every record of its topics once, in order per partition. Raises BusUnavailable."""

    async def read_new(self) -> list[Record]:
        """Return the records between the end of the previous call and the present end of the
        topics.
        """


class KafkaTopicReader:
    """Kafka implementation. The topics must exist when it starts."""

    def __init__(
        self, bootstrap_servers: str, topics: Sequence[str], security: Security = PLAINTEXT
    ) -> None:
        self._where = (bootstrap_servers, security)
        self._client = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=READ_COMMITTED,
            **security.options,
        )

    async def start(self) -> None:
        await start_client(self._client, *self._where)

    async def stop(self) -> None:
        await self._client.stop()

    async def read_new(self) -> list[Record]:
        return [record async for record in self.iterate_new()]

    async def iterate_new(self) -> AsyncGenerator[Record, None]:
        """Yield the same records one by one, for topics that do not fit into memory."""
        with _translate_errors():
            for partition, end in (
                await self._client.end_offsets(self._client.assignment())
            ).items():
                while await self._client.position(partition) < end:
                    for batch in (await self._client.getmany(timeout_ms=200)).values():
                        for raw in batch:
                            yield record_of(raw)

    async def lag(self) -> int:
        """Return the number of offsets up to the present end; some may hold no record."""
        with _translate_errors():
            ends = await self._client.end_offsets(self._client.assignment())
            return sum(
                [end - await self._client.position(partition) for partition, end in ends.items()]
            )

    async def read_at(self, position: Position) -> Record | None:
        """Return the record at a position, None if deleted or never committed. Reading continues
        after it.
        """
        partition = TopicPartition(position.topic, position.partition)
        if partition not in self._client.assignment():
            return None
        with _translate_errors():
            end = (await self._client.end_offsets([partition]))[partition]
            if position.offset >= end:
                return None
            self._client.seek(partition, position.offset)
            # No record may follow: a transaction's marker and aborted records take offsets.
            while await self._client.position(partition) < end:
                fetched = await self._client.getmany(partition, timeout_ms=200, max_records=1)
                if fetched:
                    record = record_of(fetched[partition][0])
                    return record if record.offset == position.offset else None
        return None


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BusUnavailable(str(error)) from error
