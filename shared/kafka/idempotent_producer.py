"""An idempotent producer that continues after a batch that the broker refused."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch
from aiokafka.util import create_future

from shared.messaging.codec import Headers


class IdempotentProducer(AIOKafkaProducer):  # type: ignore[misc]  # the library has no types
    """A producer that gets a new producer id after a failed batch.

    aiokafka 0.14 counts the records of a failed batch in the partition's sequence, but the broker
    does not: every later batch of the partition would fail with OutOfOrderSequenceNumber. With a
    new id each sequence starts again. Other records are not affected: a batch in flight keeps its
    id when it is sent again, and a partition has one batch in flight at a time.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(enable_idempotence=True, acks="all", **settings)
        send_batches = self._sender._send_produce_req

        async def send_and_renew_id(node_id: int, batches: dict[Any, Any]) -> None:
            await send_batches(node_id, batches)
            # Without an await in between, in which a batch could get a number of the old sequence.
            if any(_has_failed(batch.future) for batch in batches.values()):
                self._renew_producer_id()

        self._sender._send_produce_req = send_and_renew_id

    async def send_alone(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> Awaitable[Any]:
        """Enqueue a record in a batch of its own. Unlike `send`, accepts one without key and value.

        The key selects the partition, unless `partition` names an existing one.
        """
        batch = self.create_batch()
        batch.append(timestamp=None, key=key, value=value, headers=list(headers))
        batch.close()
        if partition is None:
            partitions = sorted(await self.partitions_for(topic))
            partition = DefaultPartitioner()(key, partitions, partitions)
        # A caller that stops waiting must not cancel the batch, which may have to be sent again.
        return asyncio.shield(await self.send_batch(batch, topic, partition=partition))

    def _renew_producer_id(self) -> None:
        """Forget the producer id; the sender requests another before its next batch."""
        manager = self._txn_manager
        if manager.has_pid():
            manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            manager._pid_waiter = create_future()
            manager._sequence_numbers.clear()


def _has_failed(delivery: "asyncio.Future[Any]") -> bool:
    # Not done: to be sent again.
    return delivery.done() and delivery.exception() is not None
