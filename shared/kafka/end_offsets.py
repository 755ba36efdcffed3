"""End offsets of partitions, read from the broker: a stalled consumer does not know them.

Uses its own client, because the consuming client may be the stalled one.
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
    """Compares committed offsets with the end of each partition."""

    def __init__(
        self, bootstrap_servers: str, seconds: float = 5.0, security: Security = PLAINTEXT
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._seconds = seconds
        self._client: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect; does nothing when connected already. Raises BusUnavailable when no broker
        responds.
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
        """Return the partitions with records after the committed offset (without a commit: with any
        records), and their lag in offsets.

        Raises BusUnavailable when the broker does not respond within some seconds.
        """
        if self._client is None or not committed:
            return {}
        places = {TopicPartition(*partition): partition for partition in committed}
        try:
            async with asyncio.timeout(self._seconds):
                ends = await self._client.end_offsets(list(places))
                begins = await self._client.beginning_offsets(list(places))
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"could not read the end offsets: {error}") from error
        # Records deleted by retention do not count.
        lags = {
            partition: ends[place] - max(committed[partition] or 0, begins[place])
            for place, partition in places.items()
        }
        return {partition: lag for partition, lag in lags.items() if lag > 0}

    async def has_record(self, partition: tuple[str, int], offset: int) -> bool:
        """Return whether a partition has a record at `offset` or later.

        A transaction marker takes an offset but is not a record. Raises BusUnavailable.
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
            raise BusUnavailable(f"could not read a topic: {error}") from error
