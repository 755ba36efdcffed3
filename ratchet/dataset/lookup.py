"""Look-up of announced batches by ID, prefix of an ID, or number."""

from collections.abc import Iterable
from contextlib import suppress

from shared.errors import BusUnavailable, CommandRefused, Unprocessable
from shared.events import BatchReady
from shared.kafka.security import PLAINTEXT, Security
from shared.kafka.topic_reader import KafkaTopicReader
from shared.messaging.bus import Record
from shared.messaging.codec import decode
from shared.messaging.topics import TRAINING_BATCHES


async def read_announced_batches(
    bootstrap_servers: str, security: Security = PLAINTEXT
) -> list[BatchReady]:
    """Read all announced batches, in the order of the log. Raises BusUnavailable."""
    reader = KafkaTopicReader(bootstrap_servers, [TRAINING_BATCHES], security)
    try:
        await reader.start()
        return batches_from_records(await reader.read_new())
    except BusUnavailable as error:
        raise BusUnavailable(
            f"batches could not be looked up: {error} --manifest URI --digest D names a "
            "batch without Kafka"
        ) from error
    finally:
        await reader.stop()


def batches_from_records(records: Iterable[Record]) -> list[BatchReady]:
    """Return the batches that the records announce, without repetitions: a batch announced again
    after a crash is the same batch.
    """
    batches: dict[str, BatchReady] = {}
    for record in records:
        # The trainer sends invalid records to the dead-letter topic.
        with suppress(Unprocessable):
            event = decode(record.value, record.headers, BatchReady).event
            batches.setdefault(event.batch_id, event)
    return list(batches.values())


def find_batch(batches: Iterable[BatchReady], reference: str) -> BatchReady:
    """Return the batch with this ID, prefix of an ID, `model/number` or `model#shard/number`.

    Raises CommandRefused if no batch or several match.
    """
    candidates = [
        batch
        for batch in batches
        if reference in batch_references(batch) or batch.batch_id.startswith(reference.lower())
    ]
    match candidates:
        case [batch]:
            return batch
        case []:
            raise CommandRefused(
                f"no batch matches {reference!r}; `ratchet dataset list MODEL` lists all batches"
            )
        case _:
            several = ", ".join(
                f"{batch_references(batch)[-1]} ({batch.batch_id})" for batch in candidates[:5]
            )
            more = f" and {len(candidates) - 5} more" if len(candidates) > 5 else ""
            raise CommandRefused(
                f"{len(candidates)} batches match {reference!r}: {several}{more}; give "
                "a longer prefix of the ID"
            )


def batch_references(batch: BatchReady) -> tuple[str, str]:
    """References to a batch other than its ID."""
    return f"{batch.model}/{batch.number}", f"{batch.model}#{batch.shard}/{batch.number}"
