"""Which batch a person means, among those that were announced."""

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
    """Every batch that was announced, in the order of the log. Raises BusUnavailable."""
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
    """The batches that some records announce, each once: one that was announced again, after a
    crash, is the same batch.
    """
    found: dict[str, BatchReady] = {}
    for record in records:
        # What is no announcement is answered by the trainer, with a dead letter.
        with suppress(Unprocessable):
            event = decode(record.value, record.headers, BatchReady).event
            found.setdefault(event.batch_id, event)
    return list(found.values())


def find_batch(batches: Iterable[BatchReady], reference: str) -> BatchReady:
    """The batch that `reference` names: by its id, by the beginning of one, by `model/number`, or
    by `model#shard/number`.

    Raises Declined when there is none, or more than one.
    """
    candidates = [
        batch
        for batch in batches
        if reference in batch_references(batch) or batch.batch_id.startswith(reference.lower())
    ]
    match candidates:
        case [one]:
            return one
        case []:
            raise CommandRefused(
                f"no batch is called {reference!r}; `ratchet dataset list MODEL` shows those "
                "that there are"
            )
        case _:
            several = ", ".join(
                f"{batch_references(batch)[-1]} ({batch.batch_id})" for batch in candidates[:5]
            )
            more = f" and {len(candidates) - 5} more" if len(candidates) > 5 else ""
            raise CommandRefused(
                f"{len(candidates)} batches are called {reference!r}: {several}{more}; write "
                "more of its id"
            )


def batch_references(batch: BatchReady) -> tuple[str, str]:
    """What a batch may be called besides its id."""
    return f"{batch.model}/{batch.number}", f"{batch.model}#{batch.shard}/{batch.number}"
