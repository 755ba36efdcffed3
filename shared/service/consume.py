"""The consume loop: an offset is committed after the effect of its record, here and nowhere else.

`consume` handles records one by one; `consume_batches` hands over as many as were fetched at once.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

from shared.errors import PartitionLost, Unprocessable
from shared.messaging.bus import Handler, Producer, Record, send_dead_letter
from shared.service.retry import RetryPolicy
from shared.service.runtime import Runtime

BatchHandler = Callable[[Sequence[Record]], Awaitable[None]]


async def consume(
    records: AsyncIterator[Record],
    handle: Handler,
    commit: Handler,
    producer: Producer,
    runtime: Runtime,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
) -> None:
    """Handle records one by one, each committed after its effect.

    Unprocessable records go to the dead letters. While something is Unavailable the record is
    retried; after the last attempt the error leaves this loop, so that the process ends without
    committing. So does every other error. When a handler raises PartitionLost, the record is not
    committed: it comes again to the new owner of its partition.
    """

    async def handle_one(batch: Sequence[Record]) -> None:
        [record] = batch

        async def attempt() -> None:
            runtime.health.record_progress(busy=True)
            try:
                await handle(record)
            finally:
                runtime.health.record_progress()

        try:
            await retry.call(attempt, runtime.log, **_position(record))
        except Unprocessable as error:
            runtime.log.warning("dead letter", **_position(record), reason=str(error))
            runtime.metrics.count("ratchet_dead_letters_total", topic=record.topic)
            await send_dead_letter(producer, record, error, runtime.service, runtime.clock)

    async with aclosing(_one_by_one(records)) as batches:
        await _consume(batches, handle_one, commit, runtime)


async def consume_batches(
    batches: AsyncIterator[Sequence[Record]],
    handle: BatchHandler,
    commit: Handler,
    runtime: Runtime,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
) -> None:
    """Handle records in batches as they were fetched, each batch committed after its effect.

    `handle` skips what it cannot process. Errors are those of `consume`.
    """

    async def handle_batch(batch: Sequence[Record]) -> None:
        await retry.call(lambda: handle(batch), runtime.log, records=len(batch))

    await _consume(batches, handle_batch, commit, runtime)


async def _consume(
    batches: AsyncIterator[Sequence[Record]],
    handle: BatchHandler,
    commit: Handler,
    runtime: Runtime,
) -> None:
    async for batch in batches:
        try:
            await handle(batch)
        except PartitionLost as error:
            runtime.log.info("partition lost", **_position(batch[-1]), reason=str(error))
            continue
        newest = {(record.topic, record.partition): record for record in batch}
        for record in newest.values():
            await commit(record)


async def _one_by_one(records: AsyncIterator[Record]) -> AsyncGenerator[Sequence[Record], None]:
    async for record in records:
        yield (record,)


def _position(record: Record) -> dict[str, str | int]:
    return record.position.model_dump()
