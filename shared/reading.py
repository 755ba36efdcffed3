"""Topics read as a whole, from their beginning and without a group: for a view of what others have said."""

from collections.abc import Sequence
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from shared.bus import Record, record_of
from shared.errors import BusUnavailable


class TopicReader(Protocol):
    """Gives every record of its topics once, those of one partition in order. Raises BusUnavailable."""

    async def newest(self) -> list[Record]:
        """The records between where the last call stopped and the present end of the topics."""


class KafkaReader:
    """The real thing. The topics must exist when it starts."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str]) -> None:
        self._client = AIOKafkaConsumer(
            *topics, bootstrap_servers=bootstrap_servers, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
        )

    async def start(self) -> None:
        try:
            await self._client.start()
        except KafkaError as error:
            raise BusUnavailable(str(error)) from error

    async def stop(self) -> None:
        await self._client.stop()

    async def newest(self) -> list[Record]:
        records: list[Record] = []
        try:
            for partition, end in (await self._client.end_offsets(self._client.assignment())).items():
                while await self._client.position(partition) < end:
                    fetched = await self._client.getmany(timeout_ms=200)
                    records += [record_of(raw) for batch in fetched.values() for raw in batch]
        except KafkaError as error:
            raise BusUnavailable(str(error)) from error
        return records
