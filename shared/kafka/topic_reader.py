"""Topics read as a whole, from their beginning and without a group: for a view of what others have
said.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import BusUnavailable
from shared.events import Position
from shared.kafka.client import record_of, start_client
from shared.kafka.security import PLAINTEXT, Security
from shared.messaging.bus import Record


class TopicReader(Protocol):
    """Gives every record of its topics once, those of one partition in order. Raises
    BusUnavailable.
    """

    async def read_new(self) -> list[Record]:
        """The records between where the last call stopped and the present end of the topics."""


class KafkaTopicReader:
    """The real thing. The topics must exist when it starts."""

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
            **security.options,
        )

    async def start(self) -> None:
        await start_client(self._client, *self._where)

    async def stop(self) -> None:
        await self._client.stop()

    async def read_new(self) -> list[Record]:
        return [record async for record in self.iterate_new()]

    async def iterate_new(self) -> AsyncGenerator[Record, None]:
        """The same one by one, for logs that do not fit into memory."""
        with _translate_errors():
            for partition, end in (
                await self._client.end_offsets(self._client.assignment())
            ).items():
                while await self._client.position(partition) < end:
                    for batch in (await self._client.getmany(timeout_ms=200)).values():
                        for raw in batch:
                            yield record_of(raw)

    async def lag(self) -> int:
        """How many offsets lie between where the last call stopped and the present end; some may
        hold no record.
        """
        with _translate_errors():
            ends = await self._client.end_offsets(self._client.assignment())
            return sum(
                [end - await self._client.position(partition) for partition, end in ends.items()]
            )

    async def read_at(self, position: Position) -> Record | None:
        """The record at a position, None when there is none any more. Reading goes on behind it."""
        partition = TopicPartition(position.topic, position.partition)
        if partition not in self._client.assignment():
            return None
        with _translate_errors():
            if position.offset >= (await self._client.end_offsets([partition]))[partition]:
                return None
            self._client.seek(partition, position.offset)
            record = record_of(await self._client.getone(partition))
        return record if record.offset == position.offset else None


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BusUnavailable(str(error)) from error
