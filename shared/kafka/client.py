"""The bus on Apache Kafka (aiokafka): what is sent is durable, what is read is committed by whoever
handled it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError, MessageSizeTooLargeError

from shared.errors import BusUnavailable, Misconfigured
from shared.kafka.rebalance import RebalanceHandler, RebalanceListener
from shared.kafka.security import PLAINTEXT, Security, connection_error
from shared.messaging.bus import Record
from shared.messaging.codec import Headers
from shared.messaging.topics import MAX_DEAD_LETTER_BYTES


class KafkaProducer:
    """An idempotent producer; a send is done when all in-sync replicas have the record.

    Raises Misconfigured for a record that its topic refuses for its size: no retry mends that, and
    nobody's data is at fault.
    """

    def __init__(self, bootstrap_servers: str, security: Security = PLAINTEXT) -> None:
        self._where = (bootstrap_servers, security)
        self._client = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            enable_idempotence=True,
            acks="all",
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
        """As `Pipeline`; the key decides on the partition unless one is given that the topic has."""
        with _translate_errors(topic):
            if partition is not None and partition not in await self._client.partitions_for(topic):
                partition = None
            if key is None and value is None:
                return _await_delivery(topic, await self._send_neither(topic, headers, partition))
            return _await_delivery(
                topic, await self._client.send(topic, value, key, partition, headers=list(headers))
            )

    async def send_to_all(
        self, topic: str, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> list[int]:
        """Put the same record on every partition of a topic; the partitions, once it is durable on
        each.
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

    async def _send_neither(
        self, topic: str, headers: Headers, partition: int | None
    ) -> Awaitable[object]:
        """A record without key and value, which others may send: the client refuses it, except in a
        batch.
        """
        batch = self._client.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=list(headers))
        batch.close()
        chosen = min(await self._client.partitions_for(topic)) if partition is None else partition
        delivery: Awaitable[object] = await self._client.send_batch(batch, topic, partition=chosen)
        return delivery


class KafkaConsumer:
    """A member of a consumer group that commits only when told to. While a record is being handled
    it keeps polling its paused partitions, so that work may take as long as it has to.
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
        """A member that is silent for `session_seconds` counts as gone. `rebalances` is told of
        them, and may take `handing_over_seconds` before partitions go to others.
        """
        self._topics = tuple(topics)
        self._listener = RebalanceListener(rebalance_handler)
        self._where = (bootstrap_servers, security)
        self._client = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
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
        """End the iteration after the record in hand."""
        self._stopping.set()

    async def records(self) -> AsyncGenerator[Record, None]:
        """Records of the assigned partitions, one at a time; ends after `finish`. A record that was
        handed out but not committed comes again after a restart or to the next owner of its
        partition.
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
        """As `records`, up to `most` at a time, those of each partition in order: for work that
        takes no longer than a moment.
        """
        while not self._stopping.is_set():
            try:
                fetched = await self._client.getmany(timeout_ms=200, max_records=max_records)
            except KafkaError as error:
                raise BusUnavailable(str(error)) from error
            if fetched:
                yield [record_of(raw) for batch in fetched.values() for raw in batch]

    async def commit(self, record: Record) -> None:
        """Commit the offset after `record`; quietly not when its partition has gone to another
        member, which will see it again.
        """
        if not await self.owns_after_rebalance(record):
            return
        partition = TopicPartition(record.topic, record.partition)
        try:
            await self._client.commit({partition: record.offset + 1})
        except CommitFailedError:
            # a rebalance began meanwhile: whoever owns the partition after it sees the record again
            return
        except KafkaError as error:
            raise BusUnavailable(
                f"could not commit {record.topic}-{record.partition}@{record.offset}: {error}"
            ) from error

    async def committed(self) -> dict[tuple[str, int], int | None]:
        """What the group has committed in the partitions that are this member's. Raises
        BusUnavailable when that is not known in time.
        """
        try:
            async with asyncio.timeout(5.0):
                return {
                    (at.topic, at.partition): await self._client.committed(at)
                    for at in self._client.assignment()
                }
        except (KafkaError, TimeoutError) as error:
            raise BusUnavailable(f"it is not known what is committed: {error}") from error

    async def owns_after_rebalance(self, record: Record) -> bool:
        """Whether the partition of `record` is this member's once a rebalance that may be under way
        has come to its end.
        """
        await self._listener.settled.wait()
        return self.owns(record)

    def owns(self, record: Record) -> bool:
        """Whether the partition of `record` is still this member's."""
        return TopicPartition(record.topic, record.partition) in self._client.assignment()

    @asynccontextmanager
    async def _polling(self) -> AsyncIterator[None]:
        """Poll with every partition paused while the body runs; assignments that arrive meanwhile
        are paused as well.
        """
        done = asyncio.Event()

        async def poll() -> None:
            while not done.is_set():
                assigned = self._client.assignment()
                self._client.pause(*assigned)
                # A rebalance may have unpaused partitions under the poll: what came of them is put
                # back.
                for partition, batch in (await self._client.getmany(timeout_ms=0)).items():
                    self._client.seek(partition, batch[0].offset)
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await done.wait()

        poller = asyncio.create_task(poll())
        try:
            yield
        finally:
            done.set()
            await poller
            self._client.resume(*self._client.paused())


async def start_client(
    client: AIOKafkaProducer | AIOKafkaConsumer, bootstrap_servers: str, security: Security
) -> None:
    """Start a client. Raises BusUnavailable, with the reason, when no broker takes it; then nothing
    of the client is left open.
    """
    try:
        await client.start()
    except KafkaError as error:
        await client.stop()
        why = await connection_error(bootstrap_servers, security) or str(error)
        raise BusUnavailable(
            f"no Kafka broker answers at {bootstrap_servers}: {why}; is it running, and is "
            "RATCHET_BOOTSTRAP_SERVERS right?"
        ) from error


async def _await_delivery(topic: str, delivery: Awaitable[object]) -> None:
    with _translate_errors(topic):
        await delivery


@contextmanager
def _translate_errors(topic: str) -> Iterator[None]:
    try:
        yield
    except MessageSizeTooLargeError as error:
        raise Misconfigured(
            f"{topic} does not take so large a record; raise its max.message.bytes, then "
            f"start again: {error}"
        ) from error
    except KafkaError as error:
        raise BusUnavailable(f"could not write to {topic}: {error}") from error


def record_of(raw: "ConsumerRecord[bytes, bytes]") -> Record:
    """An aiokafka record in our words."""
    stamped_at = datetime.fromtimestamp(raw.timestamp / 1000, UTC) if raw.timestamp >= 0 else None
    return Record(
        raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), stamped_at
    )
