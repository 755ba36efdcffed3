"""Where logs end, as the broker itself says: what a consumer that stands still cannot know.

A client of its own, as the one that consumes may be what stands still.
"""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import BusUnavailable
from shared.kafka.client import start_client
from shared.kafka.security import PLAINTEXT, Security

Partition = TypeVar("Partition", bound=tuple[str, int])


class EndOffsets:
    """Compares what a group has committed with what there is."""

    def __init__(
        self, bootstrap_servers: str, seconds: float = 5.0, security: Security = PLAINTEXT
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._seconds = seconds
        self._client: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Nothing happens when it has started already. Raises BusUnavailable when no broker
        answers.
        """
        if self._client is not None:
            return
        client = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            **self._security.options,
        )
        await start_client(client, self._bootstrap_servers, self._security)
        self._client = client

    async def stop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.stop()

    async def lag(self, committed: Mapping[Partition, int | None]) -> dict[Partition, int]:
        """The partitions that have records after what is committed, or without a commit any
        records, and how many offsets that is.

        Raises BusUnavailable when the broker does not say within some seconds.
        """
        if self._client is None or not committed:
            return {}
        places = {TopicPartition(*partition): partition for partition in committed}
        try:
            async with asyncio.timeout(self._seconds):
                ends = await self._client.end_offsets(list(places))
                begins = await self._client.beginning_offsets(list(places))
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"the ends of topics are unknown: {error}") from error
        # What was deleted for its age waits no more.
        lags = {
            partition: ends[place] - max(committed[partition] or 0, begins[place])
            for place, partition in places.items()
        }
        return {partition: lag for partition, lag in lags.items() if lag > 0}

    async def has_record(self, partition: tuple[str, int], offset: int) -> bool:
        """Whether a partition has a record at `offset` or after it. What a transaction leaves at
        its end takes an offset and is none.

        Raises BusUnavailable.
        """
        if self._client is None:
            return False
        place = TopicPartition(*partition)
        try:
            async with asyncio.timeout(self._seconds):
                self._client.assign([place])
                self._client.seek(place, offset)
                fetched = await self._client.getmany(place, timeout_ms=1000, max_records=1)
                (end,) = (await self._client.end_offsets([place])).values()
                return bool(fetched) or await self._client.position(place) < end
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"a topic cannot be read: {error}") from error
