"""End offsets of partitions, read from the broker: a stalled consumer does not know them.

The end is that of committed data: the last stable offset. What an open transaction has written does
not count, and neither do the records of an aborted transaction and the marker at the end of any
transaction, which take offsets but are never read.

Uses its own client, because the consuming client may be the stalled one.
"""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import BusUnavailable
from shared.kafka.client import READ_COMMITTED, start_client
from shared.kafka.security import PLAINTEXT, Security

Partition = TypeVar("Partition", bound=tuple[str, int])

READING_SECONDS = 1.0
"""Time for reading on in one partition."""


class EndOffsets:
    """Compares committed offsets with the end of each partition."""

    def __init__(
        self, bootstrap_servers: str, seconds: float = 5.0, security: Security = PLAINTEXT
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._seconds = seconds
        self._client: AIOKafkaConsumer | None = None
        self._behind: dict[tuple[str, int], int] = {}
        self._empty: dict[tuple[str, int], range] = {}

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
            isolation_level=READ_COMMITTED,
            # Where retention deletes what is about to be read; never past a record.
            auto_offset_reset="earliest",
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

        Where nothing was committed since the last call, reads on to see that there is a record.
        Raises BusUnavailable when the broker does not respond within some seconds.
        """
        if self._client is None or not committed:
            return {}
        places = {TopicPartition(*partition): partition for partition in committed}
        try:
            async with asyncio.timeout(self._seconds):
                ends = await self._client.end_offsets(list(places))
                begins = await self._client.beginning_offsets(list(places))
            lags: dict[Partition, int] = {}
            behind: dict[tuple[str, int], int] = {}
            for place, partition in places.items():
                # Records deleted by retention do not count.
                start = max(committed[partition] or 0, begins[place])
                after = self.end_of_empty(partition, start)
                if after < ends[place] and self._behind.get(partition) == start:
                    after = await self._read_on(place, start, after, ends[place])
                if after < ends[place]:
                    lags[partition] = ends[place] - after
                    behind[partition] = start
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"could not read the end offsets: {error}") from error
        self._behind = behind
        return lags

    def end_of_empty(self, partition: tuple[str, int], offset: int) -> int:
        """Return the offset up to which no record follows `offset`, as far as `lag` has read."""
        empty = self._empty.get(partition, range(0))
        return empty.stop if offset in empty else offset

    async def _read_on(self, place: TopicPartition, start: int, after: int, end: int) -> int:
        """Read from `after` until there is a record, the end, or no time left. Return the offset
        that was reached, and remember that there is no record from `start` on.
        """
        assert self._client is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READING_SECONDS
        self._client.assign([place])
        self._client.seek(place, after)
        found: object = None
        while not found and after < end and loop.time() < deadline:
            found = await self._client.getmany(place, timeout_ms=200, max_records=1)
            after = after if found else await self._client.position(place)
        self._empty[place.topic, place.partition] = range(start, after)
        return after
