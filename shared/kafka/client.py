"""The bus on Apache Kafka (aiokafka): durable sends, and manual commits of handled records."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError

from shared.errors import BusUnavailable
from shared.kafka.idempotent_producer import IdempotentProducer
from shared.kafka.produce_errors import SIZE_ERRORS, translate_errors
from shared.kafka.rebalance import RebalanceHandler, RebalanceListener
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.messaging.bus import Record
from shared.messaging.codec import Headers
from shared.messaging.topics import MAX_DEAD_LETTER_BYTES

READ_COMMITTED = "read_committed"
"""Isolation level of every consumer: records of aborted and open transactions are not read."""

METADATA_AGE_MS = 30_000
"""Longest time for which a member of a group knows nothing of a new topic or partition."""


class KafkaProducer:
    """Idempotent producer; a send completes when all in-sync replicas have the record.

    Raises Misconfigured when the topic refuses a record for its size: a retry does not help, and
    the record is not at fault. Other records are still delivered, also those of the same batch;
    they may then come after later records of their partition.
    """

    def __init__(self, bootstrap_servers: str, security: Security = PLAINTEXT) -> None:
        self._where = (bootstrap_servers, security)
        self._client = IdempotentProducer(
            bootstrap_servers=bootstrap_servers,
            linger_ms=5,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            **security.options,
        )

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> None:
        await (await self.send_nowait(topic, key, value, headers, partition))

    async def send_nowait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> Awaitable[None]:
        """Enqueue a record, as in `BufferedProducer`.

        The key selects the partition, unless `partition` names an existing one.
        """
        with translate_errors(topic):
            if partition is not None and partition not in await self._client.partitions_for(topic):
                partition = None
            if key is None and value is None:
                delivery = await self._client.send_alone(topic, key, value, headers, partition)
            else:
                delivery = await self._client.send(
                    topic, value, key, partition, headers=list(headers)
                )
        return self._await_delivery(delivery, topic, key, value, headers, partition)

    async def _await_delivery(
        self,
        delivery: Awaitable[object],
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        with translate_errors(topic):
            try:
                await delivery
            except SIZE_ERRORS:
                # The whole batch was refused. Alone, the record may fit.
                await (await self._client.send_alone(topic, key, value, headers, partition))

    async def send_to_all(
        self, topic: str, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> list[int]:
        """Produce a record to every partition of a topic; return the partitions once it is durable
        on each.
        """
        try:
            partitions = sorted(await self._client.partitions_for(topic))
            for partition in partitions:
                await self._client.send_and_wait(
                    topic, value, partition=partition, headers=list(headers)
                )
        except KafkaError as error:
            raise BusUnavailable(f"could not write to {topic}: {error}") from error
        return partitions

    async def start(self) -> None:
        await start_client(self._client, *self._where)

    async def stop(self) -> None:
        await self._client.stop()


class KafkaConsumer:
    """Member of a consumer group with manual commits.

    While a record is being handled, the consumer keeps polling with its partitions paused, so
    handling may take any time.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topics: Sequence[str],
        *,
        session_seconds: float = 10.0,
        handover_seconds: float = 0.0,
        rebalance_handler: RebalanceHandler | None = None,
        security: Security = PLAINTEXT,
    ) -> None:
        """Configure the member.

        The group considers a member lost after `session_seconds` without a heartbeat.
        `rebalance_handler` is notified of rebalances, and may take up to `handover_seconds` before
        partitions are revoked.
        """
        self._topics = tuple(topics)
        self._listener = RebalanceListener(rebalance_handler)
        self._where = (bootstrap_servers, security)
        self._client = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=READ_COMMITTED,
            # A topic or partition that is made later is assigned after this time at most.
            metadata_max_age_ms=METADATA_AGE_MS,
            max_poll_interval_ms=300_000,
            session_timeout_ms=int(session_seconds * 1000),
            heartbeat_interval_ms=int(session_seconds * 300),
            rebalance_timeout_ms=int((session_seconds + handover_seconds) * 1000),
            **security.options,
        )
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        await start_client(self._client, *self._where)
        self._client.subscribe(topics=self._topics, listener=self._listener)

    async def stop(self) -> None:
        self._stopping.set()
        await self._client.stop()

    def stop_after_current(self) -> None:
        """End the iteration after the current record."""
        self._stopping.set()

    async def records(self) -> AsyncGenerator[Record, None]:
        """Yield records of the assigned partitions, one at a time, until `stop_after_current`.

        A record that is not committed is delivered again after a restart, or to the next owner of
        its partition.
        """
        while not self._stopping.is_set():
            try:
                fetched = await self._client.getmany(timeout_ms=200, max_records=1)
            except KafkaError as error:
                raise BusUnavailable(str(error)) from error
            for partition, batch in fetched.items():
                for raw in batch:
                    async with self._polling():
                        yield record_of(raw)
                    if partition not in self._client.assignment():
                        break

    async def batches(self, max_records: int) -> AsyncGenerator[list[Record], None]:
        """Yield up to `max_records` records at a time, in order per partition, for handlers that
        take a moment only.
        """
        while not self._stopping.is_set():
            try:
                fetched = await self._client.getmany(timeout_ms=200, max_records=max_records)
            except KafkaError as error:
                raise BusUnavailable(str(error)) from error
            if fetched:
                yield [record_of(raw) for batch in fetched.values() for raw in batch]

    async def commit(self, record: Record) -> None:
        """Commit the offset after `record`.

        Does nothing when its partition has moved to another member, which receives the record
        again.
        """
        if not await self.owns_after_rebalance(record):
            return
        partition = TopicPartition(record.topic, record.partition)
        try:
            await self._client.commit({partition: record.offset + 1})
        except CommitFailedError:
            # A rebalance began: the partition's next owner receives the record again.
            return
        except KafkaError as error:
            raise BusUnavailable(
                f"could not commit {record.topic}-{record.partition}@{record.offset}: {error}"
            ) from error

    async def committed(self) -> dict[tuple[str, int], int | None]:
        """Return the group's committed offsets in the assigned partitions.

        Raises BusUnavailable when the broker does not respond in time.
        """
        try:
            async with asyncio.timeout(5.0):
                return {
                    (at.topic, at.partition): await self._client.committed(at)
                    for at in self._client.assignment()
                }
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"could not read the committed offsets: {error}") from error

    async def owns_after_rebalance(self, record: Record) -> bool:
        """Wait for the end of a rebalance in progress; return whether the record's partition is
        assigned.
        """
        await self._listener.settled.wait()
        return self.owns(record)

    def owns(self, record: Record) -> bool:
        """Return whether the record's partition is assigned to this member."""
        return TopicPartition(record.topic, record.partition) in self._client.assignment()

    @asynccontextmanager
    async def _polling(self) -> AsyncIterator[None]:
        """Poll with every partition paused while the body runs, including partitions assigned
        meanwhile.
        """
        is_handled = asyncio.Event()

        async def poll() -> None:
            while not is_handled.is_set():
                assigned = self._client.assignment()
                self._client.pause(*assigned)
                # A rebalance may have resumed partitions during the poll: rewind their records.
                for partition, batch in (await self._client.getmany(timeout_ms=0)).items():
                    self._client.seek(partition, batch[0].offset)
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await is_handled.wait()

        poller = asyncio.create_task(poll())
        try:
            yield
        finally:
            is_handled.set()
            await poller
            self._client.resume(*self._client.paused())


async def start_client(
    client: AIOKafkaProducer | AIOKafkaConsumer, bootstrap_servers: str, security: Security
) -> None:
    """Start a client.

    Raises BusUnavailable, with the reason, when no broker accepts it; the client is closed then.
    """
    try:
        await client.start()
    except KafkaError as error:
        await client.stop()
        why = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"no Kafka broker answers at {bootstrap_servers}: {why}; check that it is running, "
            "and that RATCHET_BOOTSTRAP_SERVERS is correct"
        ) from error


def record_of(raw: "ConsumerRecord[bytes, bytes]") -> Record:
    """Convert an aiokafka record."""
    stamped_at = datetime.fromtimestamp(raw.timestamp / 1000, UTC) if raw.timestamp >= 0 else None
    return Record(
        raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), stamped_at
    )
